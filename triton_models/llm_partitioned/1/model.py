"""The driver of a partitioned chat model: Orchestra's engine, whose layers are the stages of a pipeline."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from actors.triton.models.chat import ChatServer
from actors.triton.models.driver import build_driver


class TritonPythonModel:
    def initialize(self, args):
        self.server = ChatServer(pb_utils, build_driver(pb_utils, args), name=args["model_name"])

    def execute(self, requests):
        self.server.take(requests)  # answers go out through each request's sender, as they come

    def finalize(self):
        self.server.close()
