"""What all of Emberline's handlers share: a batch of bodies in, a batch of answers out, each row on its own account.

A handler file says how it reads a body that is not JSON (`TensorHandler`, `ImageHandler`) or overrides more of it. A
user's own handler may subclass `EmberHandler` too: `from ember_handler import EmberHandler`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, cast

import ember_oip
import ember_packages
import ember_prediction
import ember_probe
import ember_protocol
import ember_reader
import ember_worker
import numpy as np
import orjson
from ember_patience import TooLong, clock
from ember_prediction import Prediction
from ember_preprocessing import Array, InvalidInput, Preprocessing, stack
from ts.context import Context

A = TypeVar("A")
B = TypeVar("B")

log = logging.getLogger("emberline.handler")
log.setLevel(logging.INFO)  # what was loaded belongs in the worker's log, whatever the root logger is set to

JSON = "application/json"
FAILED = "the model failed on this input; the server's log has the reason"
# asks, on a request without a body, for the protocol's metadata; TorchServe drops what stands after a `?`
METADATA_HEADER = "x-ember-metadata"
LATER = "the worker has too much before it; try again"
BODY_NAMES = ("body", "data")  # TorchServe's names for a body, raw and as the customary form field
# requests of more rows than that are computed after the others and each alone, so that they hold up nobody else
_MANY_ROWS = 64


@dataclass
class Job:
    """One request of a batch on its way through.

    Attributes:
        columns: the model's inputs, a row an instance.
    """

    index: int
    request: ember_protocol.Request
    columns: tuple[Array, ...]

    @property
    def num_rows(self) -> int:
        return len(self.columns[0])


def columns_of(jobs: Sequence[Job]) -> tuple[Array, ...]:
    """The model's inputs, the rows of all jobs in their order."""
    if len(jobs) == 1:
        return jobs[0].columns
    return tuple(np.concatenate(column) for column in zip(*(job.columns for job in jobs), strict=True))


class EmberHandler:
    """Loads the archive's package and answers batches; TorchServe calls `initialize` once, then `handle`.

    Attributes:
        description: the archive's `artifact.json`.
        model: the loaded package; its first output is the one that is answered.
    """

    description: Mapping[str, Any]
    preprocessing: Preprocessing
    labels: Sequence[str]
    model: ember_packages.LoadedModel
    _headers: Callable[[], Mapping[str, str]] = dict  # of the request that is parsed

    def initialize(self, context: Context) -> None:
        """Loads the first package of the chain that answers the archive's probe as it should.

        Raises:
            NoUsablePackage: there is none, so this worker must not become ready.
        """
        ember_worker.settle(context.system_properties.get("gpu_id"))
        if ember_reader.install():
            log.info("reading TorchServe's protocol through a buffer")
        root = Path(context.system_properties["model_dir"])
        folder = self.model_folder(root)
        self.description = orjson.loads((folder / ember_packages.DESCRIPTION).read_bytes())
        self.preprocessing = Preprocessing(self.description["preprocessing"])
        self.labels = self.description["labels"]
        tuned = self.description.get("serving") or {}
        self.model = ember_packages.load(folder, self.description, report=log.info, threads=tuned.get("threads"))
        self._warm_up(orjson.loads((folder / ember_probe.PROBE).read_bytes()))

    def model_folder(self, folder: Path) -> Path:
        """Where in the archive the description, probe and packages of the (first) model are."""
        return folder

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answers each request of a batch; one that cannot be answered gets a status of its own, its neighbours theirs.

        Args:
            data: parameters of each request by name, as TorchServe has them.
        """
        clock.begin()
        answers: list[bytes] = [b""] * len(data)
        requests = []
        for index, parameters in enumerate(data):
            context.set_response_content_type(index, JSON)
            if not any(parameters.values()) and context.get_request_header(index, METADATA_HEADER):
                answers[index] = self._metadata(context)
                continue
            if index and not clock.may_prepare():
                answers[index] = self._put_off(context, index)
                continue
            self._headers = partial(context.get_all_request_header, index)
            request = self._judged(context, index, answers, self.parse, parameters)
            if request is not None:
                requests.append((index, request))
        for job, predictions in self._predict(self._prepared(context, requests, answers)):
            answers[job.index] = self._answer(context, job, predictions)
        return answers

    def parse(self, parameters: Mapping[str, Any]) -> ember_protocol.Request:
        """What one request asks for: a body, or a form with a field for each input.

        Raises:
            InvalidInput: names the field that cannot be used.
        """
        inputs = self.preprocessing.names
        body = next((name for name in BODY_NAMES if name in parameters and name not in inputs), None)
        if body is None:
            if not parameters:
                raise InvalidInput("body", ember_protocol.EMPTY)
            return ember_protocol.Request("single", ({name: self.field(part) for name, part in parameters.items()},))
        if len(parameters) > 1:
            foreign = min(set(parameters) - {body})
            raise InvalidInput(foreign, "is sent beside the body; inputs belong inside of it")
        return self.body(parameters[body])

    def body(self, body: Any) -> ember_protocol.Request:
        """A whole body; handlers that take other than JSON override this."""
        return ember_protocol.parse(body)

    @property
    def content_type(self) -> str:
        """Of the request that is parsed, in lower case and without parameters; empty where it has none."""
        # headers are spelled as a client or a proxy spells them
        given = next((value for name, value in self._headers().items() if name.lower() == "content-type"), "")
        return given.partition(";")[0].strip().lower()

    def field(self, part: Any) -> Any:
        """One field of a form."""
        return ember_protocol.load_json(part)

    def prepare(self, request: ember_protocol.Request) -> list[tuple[Array, ...]]:
        """Each instance as the model takes it.

        Raises:
            InvalidInput: names the instance and field.
        """
        rows: list[tuple[Array, ...]] = []
        began = clock.now
        for number, instance in enumerate(request.instances):
            if clock.has_prepared_too_long(began):
                done = f"{number} of {len(request.instances)} rows were prepared"
                raise InvalidInput(_whole(request), f"{done} in {clock.longest_preparation_s:g} s; send fewer at once")
            try:
                row = self.preprocessing(instance)
                self._check_shapes(row)
            except InvalidInput as error:
                raise InvalidInput(request.place(number, error.field), error.fact) from error
            rows.append(row)
        return rows

    def compute(self, jobs: Sequence[Job]) -> Sequence[Prediction | None]:
        """A prediction for each row of all jobs, in their order; may raise anything, which is logged."""
        return self.interpret(self.model(columns_of(jobs))[0])

    def interpret(self, outputs: Array) -> Sequence[Prediction | None]:
        """Raw outputs of a batch, as each row is answered; None where the model's answer cannot be used."""
        return ember_prediction.interpret(outputs, self.labels)

    def render(
        self, request: ember_protocol.Request, predictions: Sequence[Prediction], model: str, version: str
    ) -> bytes:
        """The body that answers a request.

        Raises:
            InvalidInput: what was asked for is not there.
        """
        return ember_protocol.render(request, predictions, model, version)

    def outputs(self) -> list[dict[str, Any]]:
        """The tensors of an Open Inference answer, as metadata tells them; empty where they are every handler's."""
        return []

    def _prepared(
        self, context: Context, requests: Sequence[tuple[int, ember_protocol.Request]], answers: list[bytes]
    ) -> list[Job]:
        """A job for each request that can be used; all of them at once where nothing is wrong with any."""
        if type(self).prepare is EmberHandler.prepare:
            columns = self._together([instance for _, request in requests for instance in request.instances])
            if columns is not None:
                ends = np.cumsum([len(request.instances) for _, request in requests]).tolist()
                return [
                    Job(index, request, tuple(column[start:end] for column in columns))
                    for (index, request), start, end in zip(requests, [0, *ends], ends, strict=False)
                ]
        jobs = []
        for number, (index, request) in enumerate(requests):
            if number and not clock.may_prepare():
                answers[index] = self._put_off(context, index)
                continue
            rows = self._judged(context, index, answers, self.prepare, request)
            if rows is not None:
                jobs.append(Job(index, request, stack(rows)))
        return jobs

    def _together(self, instances: Sequence[Mapping[str, Any]]) -> tuple[Array, ...] | None:
        columns = self.preprocessing.together(instances) if instances else None
        if columns is None:
            return None
        shapes = [column.shape[1:] for column in columns]
        return columns if shapes == [shape for _dtype, shape in self.model.inputs] else None

    def _judged(
        self, context: Context, index: int, answers: list[bytes], step: Callable[[A], B], argument: A
    ) -> B | None:
        """What a step makes of one request; None where that went wrong, which becomes the request's own answer."""
        try:
            return step(argument)
        except InvalidInput as error:
            answers[index] = self._refuse(context, index, error)
        except Exception:
            # whatever else a user's handler raises is its own fault, and not that of the batch's other requests
            log.exception("a request could not be prepared")
            answers[index] = self._fail(context, index, FAILED)
        return None

    def _predict(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Sequence[Prediction | None] | TooLong | None]]:
        """Predictions of each job: small ones in one batch, the others each alone."""
        small = [job for job in jobs if job.num_rows <= _MANY_ROWS]
        if small:
            yield from self._predict_together(small)
        for job in jobs:
            if job.num_rows > _MANY_ROWS:
                yield from self._predict_together([job])

    def _predict_together(self, jobs: Sequence[Job]) -> list[tuple[Job, Sequence[Prediction | None] | TooLong | None]]:
        """Predictions in one batch; should that fail, each alone, so that one cannot fail the others."""
        together = self._computed(jobs)
        if together is None and len(jobs) > 1:
            return [(job, self._computed([job])) for job in jobs]
        if together is None or isinstance(together, TooLong):
            return [(job, together) for job in jobs]
        ends = list(accumulate(job.num_rows for job in jobs))
        return [(job, together[end - job.num_rows : end]) for job, end in zip(jobs, ends, strict=True)]

    def _computed(self, jobs: Sequence[Job]) -> Sequence[Prediction | None] | TooLong | None:
        """A prediction for each row; None when the model failed, which is logged with its traceback."""
        rows = sum(job.num_rows for job in jobs)
        is_early = clock.is_early()
        try:
            predictions = self.compute(jobs)
        except TooLong:
            return TooLong(is_alone=len(jobs) == 1 and is_early)
        except Exception:
            # a compiled or a user's model may raise anything; the client is told that it failed, the log is told why
            log.exception("the model failed on a batch of %d rows", rows)
            return None
        if len(predictions) != rows:
            log.error("the model answered %d rows with %d predictions", rows, len(predictions))
            return None
        return predictions

    def _answer(self, context: Context, job: Job, predictions: Sequence[Prediction | None] | TooLong | None) -> bytes:
        if isinstance(predictions, TooLong) and predictions.is_alone:
            fact = f"{job.num_rows} rows take longer than this server waits for an answer; send fewer at once"
            return self._refuse(context, job.index, InvalidInput(_whole(job.request), fact))
        if isinstance(predictions, TooLong) or not clock.may_answer():
            return self._put_off(context, job.index)
        if predictions is None or not ember_prediction.all_usable(predictions):
            fact = FAILED if predictions is None else "the model's outputs are not finite for this input"
            return self._fail(context, job.index, fact)
        usable = cast("Sequence[Prediction]", predictions)
        try:
            return self.render(job.request, usable, context.model_name, _version(context))
        except InvalidInput as error:  # an output was asked for that there is not
            return self._refuse(context, job.index, error)
        except Exception:
            # as in `_judged`: what cannot be told of one request must not take the answers of the others with it
            log.exception("an answer could not be rendered")
            return self._fail(context, job.index, FAILED)

    def _metadata(self, context: Context) -> bytes:
        described = ember_oip.metadata(self.description, self.model.inputs, context.model_name, _version(context))
        return orjson.dumps({**described, "outputs": self.outputs() or described["outputs"]})

    def _refuse(self, context: Context, index: int, error: InvalidInput) -> bytes:
        context.set_response_status(code=400, phrase="Bad Request", idx=index)
        return ember_protocol.render_error(str(error), error.field)

    def _put_off(self, context: Context, index: int) -> bytes:
        context.set_response_status(code=503, phrase="Service Unavailable", idx=index)
        context.set_response_header(index, "Retry-After", "1")
        return ember_protocol.render_error(LATER)

    def _fail(self, context: Context, index: int, text: str) -> bytes:
        context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
        return ember_protocol.render_error(text)

    def _check_shapes(self, row: tuple[Array, ...]) -> None:
        """Refuses what would not stack, such as an image of another size where nothing resizes it."""
        for spec, array, (_dtype, shape) in zip(self.preprocessing.inputs, row, self.model.inputs, strict=True):
            if array.shape != shape:
                raise InvalidInput(
                    spec["name"], f"shape is {list(array.shape)} after preprocessing; {list(shape)} is required"
                )

    def _warm_up(self, probe: Mapping[str, Any]) -> None:
        """The first call of a package is slow, and shows what would fail each later one, such as too few labels."""
        row = self.preprocessing(probe["instance"])
        self.interpret(self.model(stack([row]))[0])


def _whole(request: ember_protocol.Request) -> str:
    """What an error names when a request is too much as a whole."""
    return {"oip": "inputs", "instances": "instances"}.get(request.style, "body")


def _version(context: Context) -> str:
    return str(context.manifest["model"]["modelVersion"])
