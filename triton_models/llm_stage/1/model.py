"""Some layers of a chat model; its tensors are in config.pbtxt."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from actors.triton.models.stage_server import StageServer


class TritonPythonModel:
    def initialize(self, args):
        self.server = StageServer(pb_utils, args)

    def execute(self, requests):
        return [self.server.answer(request) for request in requests]

    def finalize(self):
        self.server.close()
