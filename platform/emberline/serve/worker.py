"""TorchServe's worker in a forked process: its own script, run with a page that tells what it does."""

import logging
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emberline.serve.page import Page

# the router tells by it a handler's 404 from TorchServe's own, of a version that is not registered yet
_ANSWERED = ("x-answered-by", "handler")
_OK = 200


def run(arguments: Sequence[str], pages: Path) -> int:
    """Runs `SCRIPT ARGUMENTS…` as Python itself would; returns its exit code."""
    script = next(index for index, argument in enumerate(arguments) if argument.endswith(".py"))
    sys.argv = list(arguments[script:])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(Path(sys.argv[0]).parent), *paths]
    watch(Page(pages))
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        logging.getLogger("emberline.worker").exception("the worker's script failed")
        return 1
    return 0


def watch(page: Page) -> None:
    """Has TorchServe's service write each batch to the page, and mark what the handler itself refused."""
    from ts import service

    predict: Callable[[Any, Any], bytes] = service.Service.predict
    respond: Callable[..., bytes] = service.create_predict_response

    def watched(self: Any, batch: Any) -> bytes:
        model = self.context.manifest["model"]
        page.begin(self.context.model_name, str(model.get("modelVersion", "")))
        return predict(self, batch)

    def responded(ret: Any, ids: Any, message: str, code: int, context: Any = None, *rest: Any, **named: Any) -> bytes:
        statuses = [code] * len(ids)
        if context is not None:
            statuses = [context.get_response_status(row)[0] or _OK for row in ids]
            for row, status in zip(ids, statuses, strict=True):
                if status != _OK:
                    context.set_response_header(row, *_ANSWERED)
        answer = respond(ret, ids, message, code, context, *rest, **named)
        page.end(statuses)
        return answer

    service.Service.predict = watched
    service.create_predict_response = responded
