"""TorchServe's two processes, java and the one that workers are forked from: started together, stopped together."""

from typing import TYPE_CHECKING

from emberline.errors import EmberlineError
from emberline.runlog import RunLog
from emberline.serve import modellog, torchserve, workers

if TYPE_CHECKING:
    from emberline.process import Child
    from emberline.serve.classes import SharedClasses


class Engine:
    """What runs the models; used by one thread.

    Attributes:
        mark: where in the workers' log the words of the present java's workers begin.
    """

    def __init__(self, setup: torchserve.Setup, log: RunLog) -> None:
        self.setup, self.log = setup, log
        self.mark = 0
        self._java: Child | None = None
        self._parent: Child | None = None
        self._starting: torchserve.Started | None = None
        self._shared: SharedClasses | None = None
        self._sharing: Child | None = None

    @property
    def java_pid(self) -> int | None:
        return self._java.pid if self._java else None

    @property
    def is_running(self) -> bool:
        return self._java is not None and self._java.poll() is None

    @property
    def java_code(self) -> int | None:
        return self._java.poll() if self._java else None

    def launch(self) -> None:
        """Starts both, which take their time to be up, without waiting for them."""
        self.mark = modellog.size_of(self.setup.model_log)
        self.look_after_parent()
        self._starting = torchserve.launch(self.setup)
        self._shared = self._starting.shared
        self._java = self._starting.child  # to be stopped, should the wait for it be broken off

    def wait_up(self) -> None:
        """Returns when java is up, starting it where it was not.

        Raises:
            StageFailed: it did not come up; its last words are told.
        """
        if self._starting is None:
            self.launch()
        assert self._starting is not None  # noqa: S101 - launched just now
        started, self._starting = self._starting, None
        self._java = torchserve.wait_up(self.setup, started)
        self.log.event("torchserve_started", pid=self._java.pid)

    def look_after_parent(self) -> None:
        """Starts the process that workers are forked from, where it does not run."""
        if self._parent is not None:
            if self._parent.poll() is None:
                return
            self.log.say("the process that workers are forked from has ended; starting it again")
        self._parent = workers.start(self.setup.workers, self.setup.environment, self.setup.workers_log)

    def share_classes(self) -> None:
        """Has java's classes made ready for later starts; call it now and then while serving."""
        if self._shared is None:
            return
        try:
            self._go_on_sharing(self._shared)
        except (EmberlineError, OSError) as error:  # a later start takes longer, which is no reason to end this one
            self.log.say(f"java's classes are not kept ready for the next start: {error}")
            self._shared = None

    def _go_on_sharing(self, shared: "SharedClasses") -> None:
        if self._sharing is None:
            self._sharing = shared.make(self.setup.java_log)
        elif (code := self._sharing.poll()) is not None:
            self._sharing.stop()
            self._sharing = self._shared = None  # java may be started again, and there is nothing more to make then
            if code == 0:
                shared.keep()
            self.log.event("java_classes_shared", file=shared.file, code=code)

    def stop_java(self, *, grace_s: float = 10.0) -> None:
        if self._java is not None:
            self._java.stop(grace_s)

    def stop(self) -> None:
        """Ends both and all they started; at once where java was not up yet, since nobody has asked it anything."""
        for child in (self._sharing, self._java, self._parent):
            if child is not None:
                child.stop(10.0 if self._starting is None else 0.0)
