"""Serves models that score items: the best of a request's candidates, best first."""

from ember_ranking import EmberRanking


class RankingHandler(EmberRanking):
    """All of it is `EmberRanking`'s; TorchServe requires exactly one class in this file."""
