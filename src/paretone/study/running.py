"""The driver: hands stages out when what they need is there, until every cell is done or has failed."""

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from paretone.errors import UserError
from paretone.study.engines import Engine
from paretone.study.layout import Layout
from paretone.study.schema import Budget
from paretone.study.stages import Stage
from paretone.study.store import Store
from paretone.study.work import Outcome, Task

DEATHS = 5  # of workers at one stage, in one run: more can't be chance
BUSY_S = 0.5  # until a stage that another driver is at is looked at again

Say = Callable[[str], None]


@dataclass
class Ran:
    """What a run did: stages by how they ended.

    Attributes:
        made: of those that are done by this run, and not by another driver meanwhile.
        damaged: were done before and had to be made again.
    """

    done: list[Stage] = field(default_factory=list)
    made: int = 0
    failed: dict[Stage, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def missing_stages(layout: Layout, store: Store, say: Say) -> tuple[list[Stage], dict[str, str]]:
    """Stages to be done, in an order in which they can be, and those whose files were damaged and are gone now.

    What a cell that is done was made from is not needed any more, so it is not looked for.
    """
    wanted: dict[Stage, None] = {}
    looked: dict[Stage, bool] = {}
    damaged: dict[str, str] = {}

    def is_whole(stage: Stage) -> bool:
        if stage not in looked:
            looked[stage] = store.has(stage.place)
            if looked[stage] and (what := store.damage(stage.place)) is not None:
                looked[stage] = False
                damaged[stage.place] = what
                say(f"{stage.place}: {what}; it is made again")
                store.remove(stage.place)
        return looked[stage]

    def want(stage: Stage) -> None:
        if stage in wanted or is_whole(stage):
            return
        for need in stage.needs():
            want(need)
        wanted[stage] = None

    for end in layout.ends():
        want(end)
    return list(wanted), damaged


class Driver:
    """One run of a study."""

    def __init__(self, layout: Layout, store: Store, engine: Engine, *, say: Say, tell: Callable[[Ran], None]) -> None:
        self.layout, self.store, self.engine, self.say, self.tell = layout, store, engine, say, tell
        self.budget: Budget = layout.study.budget
        self.ran = Ran()
        self._waiting: dict[Stage, int] = {}
        self._followers: dict[Stage, list[Stage]] = {}
        self._ready: list[tuple[int, Stage]] = []
        self._number: dict[Stage, int] = {}
        self._later: list[tuple[float, Stage]] = []
        self._attempts: dict[Stage, int] = {}
        self._deaths: dict[Stage, int] = {}
        self._by_place: dict[str, Stage] = {}

    def run(self) -> Ran:
        """Until nothing is left that can be done.

        Raises:
            UserError: if the disk is full; what is done stays.
        """
        started = time.monotonic()
        stages, self.ran.damaged = missing_stages(self.layout, self.store, self.say)
        for stage in stages:  # what failed before waits again
            self.store.failure_file(stage.place).unlink(missing_ok=True)
        self._plan(stages)
        running = 0
        while running or self._ready or self._later:
            self._come_back()
            while self._ready and running < self.engine.slots:
                _, stage = heapq.heappop(self._ready)
                self._attempts[stage] = self._attempts.get(stage, 0) + 1
                self.engine.submit(Task.of(stage, self.store, self.budget, self._attempts[stage]))
                running += 1
            for task, outcome in self.engine.wait():
                running -= 1
                self._ended(self._by_place[task.place], outcome)
            self.ran.seconds = time.monotonic() - started
            self.tell(self.ran)
        self.store.sweep()
        return self.ran

    def _plan(self, stages: Iterable[Stage]) -> None:
        wanted = set(stages)
        for number, stage in enumerate(stages):
            self._number[stage] = number
            self._by_place[stage.place] = stage
            needs = {need for need in stage.needs() if need in wanted}
            self._waiting[stage] = len(needs)
            for need in needs:
                self._followers.setdefault(need, []).append(stage)
            if not needs:
                self._make_ready(stage)

    def _make_ready(self, stage: Stage) -> None:
        """Stages go out in the order of their cells, so that a cell that is begun is finished first."""
        heapq.heappush(self._ready, (self._number[stage], stage))

    def _come_back(self) -> None:
        """Stages that were busy elsewhere are asked for again after a moment."""
        now = time.monotonic()
        due = [stage for at, stage in self._later if at <= now]
        self._later = [(at, stage) for at, stage in self._later if at > now]
        for stage in due:
            self._make_ready(stage)

    def _ended(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.status == "done":
            self.ran.made += outcome.is_new
            self._succeeded(stage)
        elif outcome.status == "busy":
            self._attempts[stage] -= 1
            self._later.append((time.monotonic() + BUSY_S, stage))
        elif outcome.status == "full":
            raise UserError(f"store {self.store.root}: the disk is full; free space, then give the same command")
        elif self._may_try_again(stage, outcome):
            self.say(f"{stage.place}: {outcome.reason}; it is tried again")
            self._make_ready(stage)
        else:
            self._fail(stage, outcome.reason)

    def _may_try_again(self, stage: Stage, outcome: Outcome) -> bool:
        if outcome.status == "died":
            self._attempts[stage] -= 1
            self._deaths[stage] = self._deaths.get(stage, 0) + 1
            if self._deaths[stage] > DEATHS:
                self.store.fail(stage.place, outcome.reason, "", self._attempts[stage] + 1)
            return self._deaths[stage] <= DEATHS
        return not outcome.is_hopeless and self._attempts[stage] <= self.layout.study.retries

    def _succeeded(self, stage: Stage) -> None:
        self.ran.done.append(stage)
        for follower in self._followers.get(stage, []):
            self._waiting[follower] -= 1
            if not self._waiting[follower]:
                self._make_ready(follower)
        if self.layout.study.keep == "results":
            self._tidy(stage)

    def _fail(self, stage: Stage, reason: str) -> None:
        """Whatever stands on it can't be done in this run; what only came quicker by it is done without."""
        self.ran.failed[stage] = reason
        self.say(f"{stage.place} failed: {reason.splitlines()[0] if reason else 'no reason is known'}")
        for follower in self._followers.get(stage, []):
            if stage in follower.after.values() and stage not in follower.inputs.values():
                self._waiting[follower] -= 1
                if not self._waiting[follower]:
                    self._make_ready(follower)
            elif follower not in self.ran.failed:
                self._fail(follower, f"{stage.place}, which it needs, failed")

    def _tidy(self, stage: Stage) -> None:
        """Models from which every cell of this study is measured go; another study makes what it needs again."""
        for need in stage.inputs.values():
            if all(self.store.has(each.place) for each in self._followers.get(need, [])):
                with self.store.claim(need.place) as is_mine:
                    if is_mine:
                        self.store.remove(need.place)
