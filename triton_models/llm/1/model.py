"""A chat model on Orchestra's engine, which batches continuously; its tensors are in config.pbtxt."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from actors.triton.models.chat import ChatServer
from actors.triton.models.engines import build_engine


class TritonPythonModel:
    def initialize(self, args):
        self.server = ChatServer(pb_utils, build_engine(args), name=args["model_name"])

    def execute(self, requests):
        self.server.take(requests)  # answers go out through each request's sender, as they come

    def finalize(self):
        self.server.close()
