"""A click log that is made up: no person clicked here. Users, posts and clicks are drawn from a seed.

Every user has tastes and every post topics, both hidden; a click is likelier where they meet, where the post is good,
young, and by an author whom the user knows. A row's numbers show some of that through noise; the rest can only be
learnt from who the user is and which post it is. So a net of the numbers ranks well, and one with both ranks better.
"""

import numpy as np
from numpy.typing import NDArray

from emberline.data import ArrayRows, Splits

NUMBERS = 12
_HIDDEN = 8


def clicks(  # noqa: PLR0917 - by name only, from a recipe
    seed: int = 0,
    users: int = 200,
    posts: int = 1000,
    impressions: int = 40_000,
    requests: int = 40,
    candidates: int = 500,
) -> Splits:
    """Impressions to train on; for validation and test, requests of `candidates` posts for one user each.

    Args:
        seed: of everything; the splits share the users and posts, and no impression.
        requests: in each of validation and test.
    """
    random = np.random.Generator(np.random.Philox(seed))
    world = _World(random, users, posts)
    train = world.rows(random.integers(users, size=impressions), random.integers(posts, size=impressions))
    validation, test = (_lists(world, random, requests, candidates) for _ in range(2))
    return Splits(train, validation, test)


def _lists(world: "_World", random: np.random.Generator, requests: int, candidates: int) -> ArrayRows:
    users = np.repeat(random.choice(world.num_users, requests, replace=requests > world.num_users), candidates)
    posts = np.concatenate([random.choice(world.num_posts, candidates, replace=False) for _ in range(requests)])
    rows = world.rows(users, posts)
    return ArrayRows(rows.inputs, rows.labels, np.repeat(np.arange(requests), candidates))


class _World:
    """What is hidden of users and posts, and what shows of it in an impression."""

    def __init__(self, random: np.random.Generator, users: int, posts: int) -> None:
        self.num_users, self.num_posts = users, posts
        self._random = random
        self._taste = random.normal(size=(users, _HIDDEN)) / np.sqrt(_HIDDEN)
        self._topic = random.normal(size=(posts, _HIDDEN))
        self._quality = random.normal(size=posts)
        self._length = random.uniform(size=posts)
        self._activity = random.normal(size=users)

    def rows(self, users: NDArray[np.int64], posts: NDArray[np.int64]) -> ArrayRows:
        random, count = self._random, len(users)
        match = np.einsum("rh,rh->r", self._taste[users], self._topic[posts])
        quality, length, activity = self._quality[posts], self._length[posts], self._activity[users]
        age_h, known, hour = random.exponential(12, count), random.beta(1, 3, count), random.uniform(0, 24, count)
        evening = np.cos((hour - 21) / 24 * 2 * np.pi)
        score = 1.6 * match + 1.3 * quality - 0.05 * age_h + 2.0 * known + 0.4 * activity
        score = score + 0.8 * evening * (length - 0.5) + 0.6 * match * (known > 0.4)  # noqa: PLR2004 - a made-up world
        labels = (random.uniform(size=count) < 1 / (1 + np.exp(2.6 - score))).astype(np.int64)
        shown = [
            match + 0.8 * random.normal(size=count),  # what the user clicked of late, roughly
            quality + 1.5 * random.normal(size=count),  # the post's rate of clicks so far, roughly
            np.log1p(age_h),
            known,
            length,
            activity + 0.3 * random.normal(size=count),
            np.sin(hour / 24 * 2 * np.pi),
            np.cos(hour / 24 * 2 * np.pi),
            *random.normal(size=(NUMBERS - 8, count)),  # and some that say nothing
        ]
        numbers = np.clip(np.stack(shown, axis=1), -20, 20).astype(np.float32)
        return ArrayRows({"numbers": numbers, "ids": np.stack([users, posts], axis=1).astype(np.int64)}, labels)
