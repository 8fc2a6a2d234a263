"""The artifact that a search varies, and jobs that make it as one candidate or as several. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from emberline.compress.job import Job
from emberline.compress.search.space import Candidate, stages_of
from emberline.errors import InvalidSetting
from emberline.recipe import Search, Stage, Variant


@dataclass(frozen=True)
class Sought:
    """Attributes:
    job: of the recipe that is searched.
    """

    job: Job

    @property
    def search(self) -> Search:
        """Raises:
        InvalidSetting: the recipe has no such section.
        """
        if self.job.settings.search is None:
            required, hint = "what --search may change", "recipes/digits.yaml has one"
            raise InvalidSetting(self.job.path, "compress.search", None, required, hint=hint)
        return self.job.settings.search

    @property
    def name(self) -> str:
        return self.job.settings.sought

    def stages(self, candidate: Candidate, *, quick: bool = False) -> tuple[Stage, ...]:
        like = self.job.settings.artifacts[self.name]
        return stages_of(candidate, self.search, self.job.recipe.model, like, quick=quick)

    def is_baseline(self, candidate: Candidate) -> bool:
        """Whether a candidate is what all are held against."""
        return self.stages(candidate) == self.job.settings.artifacts[self.job.settings.baseline].stages

    def jobs(self, candidates: Mapping[str, Candidate]) -> Job:
        """The baseline and these candidates, by name, each under the sought artifact's gates and without fallbacks."""
        settings = self.job.settings
        like = settings.artifacts[self.name]
        variants: dict[str, Variant] = {
            name: like.model_copy(update={"stages": self.stages(one), "fallbacks": ()})
            for name, one in candidates.items()
        }
        artifacts = {settings.baseline: settings.artifacts[settings.baseline], **variants}
        changed = settings.model_copy(update={"artifacts": artifacts, "search": None})
        return replace(self.job, settings=changed, recipe=self.job.recipe.model_copy(update={"compress": changed}))
