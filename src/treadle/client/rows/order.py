"""The order in which the tasks of a graph are worth running: one after the other, it keeps few results alive at a time.

No I/O, no clock, no hash order: the result depends on the graph and on the numbers of its tasks only, whatever the order
inside the lists. Time and memory grow with tasks and dependencies (times the logarithm of a heap); nothing recurses.

The rules, from the most to the least urgent; what is *alive* is a result that somebody still needs:

1. Run what is ready and frees more results than it makes.
2. Work on the current goal: depth first, its dependencies that need something new before those that do not, because the
   latter would only wait; the ones that take the most room before the others.
3. A *bargain* interrupts a goal that would open new roots: a task that needs none of them, and that pays for itself when
   each alive result is charged to its dependents in equal shares.
4. Without a goal, take the task for which the least more becomes alive, then the one of which the least is missing.
5. Without even that, take the next task that nothing depends on.

Two choices decide little in most graphs and much in some, and no rule was found that is always right: whether the smallest or
the largest come first of the last kind, and whether bargains are taken that barely pay. Where they make a difference both
are tried, and what kept less alive is returned.
"""

from __future__ import annotations

from graphlib import CycleError
from heapq import heappop, heappush
from typing import Final

#: A whole result, as a unit of credit, and what is too little to count: credit is compared in quarters.
WHOLE: Final = 1 << 16
QUARTER_BITS: Final = 14
#: What equal shares may lack because they are rounded down.
ROUNDING: Final = 16
#: What a bargain brings in beyond its price, if it does not barely pay.
GAIN: Final = WHOLE // 2
#: Fields of a heap entry: price, number of dependencies that are out of reach, task.
TASK_BITS: Final = 28
MISSING_BITS: Final = 10
MOST_MISSING: Final = (1 << MISSING_BITS) - 1
HIGHEST_PRICE: Final = 1 << 20


def order(dependencies: list[list[int]], wanted: list[int]) -> list[int]:
    """The rank of each task; 0 runs first, and every task after its dependencies.

    Task ``i`` depends on ``dependencies[i]``, each once. The results of ``wanted`` are somebody else's to keep: they are not
    counted. Raises ``graphlib.CycleError`` (a ValueError) with the cycle's members as its second argument, first equal to
    last, each a dependency of the one before it.
    """
    if len(dependencies) >= 1 << TASK_BITS:
        raise ValueError(f"a graph of {len(dependencies)} tasks is too large to be ordered; the limit is {1 << TASK_BITS}")
    graph = Graph(dependencies, wanted)
    sinks = graph.sinks(largest_first=False)
    best = Ordering(graph, sinks, 0)
    largest_first = graph.sinks(largest_first=True)
    if largest_first != sinks:
        other = Ordering(graph, largest_first, 0)
        if other.cost() < best.cost():
            best, sinks = other, largest_first
    if best.doubts:
        other = Ordering(graph, sinks, GAIN)
        if other.cost() < best.cost():
            best = other
    return best.rank


class Graph:
    """What is known of a graph before anything runs."""

    def __init__(self, dependencies: list[list[int]], wanted: list[int]) -> None:
        size = len(dependencies)
        #: By task, ascending.
        self.dependents: list[list[int]] = [[] for _ in range(size)]
        for task in range(size):
            for dependency in dependencies[task]:
                self.dependents[dependency].append(task)
        #: By task: 1 if its result is alive from its end to the end of its last dependent, 0 if it never counts.
        self.kept: list[int] = [1 if users else 0 for users in self.dependents]
        for task in wanted:
            self.kept[task] = 0
        #: By task, those that take the most room first.
        self.dependencies: list[list[int]] = []
        #: By task: how many results are alive at once to make it, if none of them had another use (Sethi and Ullman's number).
        self.room: list[int] = []
        self._measure(dependencies)

    def _measure(self, dependencies: list[list[int]]) -> None:
        size = len(dependencies)
        missing: list[int] = [len(needed) for needed in dependencies]
        room: list[int] = [1] * size
        self.dependencies = dependencies.copy()
        queue: list[int] = [task for task in range(size) if not missing[task]]
        for task in queue:
            needed = dependencies[task]
            if len(needed) == 1:
                room[task] = room[needed[0]]
            elif needed:
                codes: list[int] = [dependency - (room[dependency] << TASK_BITS) for dependency in needed]
                codes.sort()
                by_room: list[int] = []
                most = 1
                for code in codes:
                    dependency = code & ((1 << TASK_BITS) - 1)
                    most = max(most, room[dependency] + len(by_room))
                    by_room.append(dependency)
                room[task] = most
                self.dependencies[task] = by_room
            for dependent in self.dependents[task]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    queue.append(dependent)
        if len(queue) < size:
            raise CycleError("tasks depend on each other in a cycle", find_cycle(dependencies, missing))
        self.room = room

    def sinks(self, largest_first: bool) -> list[int]:
        """The tasks that nothing depends on, by the room that they take, then by number."""
        sign = -1 if largest_first else 1
        codes: list[int] = [(sign * self.room[task] << TASK_BITS) + task for task in range(len(self.room)) if not self.dependents[task]]
        codes.sort()
        return [code & ((1 << TASK_BITS) - 1) for code in codes]


def find_cycle(dependencies: list[list[int]], missing: list[int]) -> list[int]:
    """A cycle among the tasks that are missing something: each of these depends on another such."""
    position: list[int] = [-1] * len(missing)
    path: list[int] = []
    task = 0
    while not missing[task]:
        task += 1
    while position[task] < 0:
        position[task] = len(path)
        path.append(task)
        for dependency in dependencies[task]:
            if missing[dependency]:
                task = dependency
                break
    return [*path[position[task] :], task]


class Ordering:
    """One run of the rules over a graph."""

    def __init__(self, graph: Graph, sinks: list[int], gain: int) -> None:
        size = len(graph.kept)
        self.dependencies: list[list[int]] = graph.dependencies
        self.dependents: list[list[int]] = graph.dependents
        self.kept: list[int] = graph.kept
        #: By task: -1 until it has run.
        self.rank: list[int] = [-1] * size
        self.finished = 0
        self.alive = 0
        self.peak = 0
        #: The sum of ``alive`` after each task.
        self.area = 0
        #: By task: dependencies that have not run; dependents that have not run, and the sum of their numbers.
        self.missing: list[int] = [len(needed) for needed in graph.dependencies]
        self.uses: list[int] = [len(users) for users in graph.dependents]
        self.users_sum: list[int] = [sum(users) for users in graph.dependents]
        #: By task: results that nobody but this task still needs.
        self.frees: list[int] = [0] * size
        #: A task is within reach when all roots below it have run. By task: dependencies that are out of reach; -1: it is itself
        #: within reach.
        self.unreached: list[int] = self.missing.copy()
        #: By task: the shares that are its to free, of results that are alive and of those below that are within reach.
        self.credit: list[int] = [0] * size
        #: By task: what it has added to the credit of each dependent.
        self.given: list[int] = [0] * size
        #: Where a task's dependencies were looked through to: those out of reach, and then, from their number on, all.
        self.cursor: list[int] = [0] * size
        #: The latest entry in the heap, by task.
        self.entry: list[int] = [0] * size
        #: Stacks, the first two of tasks that may have run in the meantime.
        self.profitable: list[int] = []
        self.bargains: list[int] = []
        self.goals: list[int] = []
        self.heap: list[int] = []
        self.sinks: list[int] = sinks
        #: What bargains must bring in beyond their price, and how many were taken that bring in less than GAIN.
        self.gain = gain
        self.doubts = 0
        self._run(size)

    def cost(self) -> int:
        """How much was alive, at most and on average, times the number of tasks."""
        return self.peak * self.finished + 2 * self.area

    def _run(self, size: int) -> None:
        goals = self.goals
        next_sink = 0
        while self.finished < size:
            if self.profitable:
                task = self.profitable.pop()
                if self.rank[task] < 0:
                    self._finish(task)
                continue
            if self.bargains and not self._within_reach():
                task = self.bargains.pop()
                if self.rank[task] < 0:
                    goals.append(task)
                continue
            if not goals:
                task = self._cheapest()
                while task < 0:
                    if self.rank[self.sinks[next_sink]] < 0:
                        task = self.sinks[next_sink]
                    next_sink += 1
                goals.append(task)
            task = goals[-1]
            if self.rank[task] >= 0:
                goals.pop()
            elif self.missing[task]:
                goals.append(self._missing_dependency(task))
            else:
                goals.pop()
                self._finish(task)

    def _within_reach(self) -> bool:
        """Whether work goes on without new roots: with the goal, or with something that needs nothing and costs nothing."""
        if self.goals:
            return self.unreached[self.goals[-1]] < 0
        task = self._cheapest()
        if task < 0:
            return False
        if self.kept[task] <= self.frees[task] and self.unreached[task] < 0:
            self.goals.append(task)
            return True
        self.entry[task] = 0
        self._offer(task)
        return False

    def _missing_dependency(self, task: int) -> int:
        """The next to run of those that a task lacks. What has run, and what is within reach, stays so: no second look."""
        needed = self.dependencies[task]
        count = len(needed)
        position = self.cursor[task]
        while position < count:
            dependency = needed[position]
            if self.unreached[dependency] >= 0:
                self.cursor[task] = position
                return dependency
            position += 1
        while self.rank[needed[position - count]] >= 0:
            position += 1
        self.cursor[task] = position
        return needed[position - count]

    def _cheapest(self) -> int:
        """Take the best entry from the heap; -1 if there is none."""
        while self.heap:
            entry = heappop(self.heap)
            task = entry & ((1 << TASK_BITS) - 1)
            if self.rank[task] < 0 and entry == self.entry[task]:
                return task
        return -1

    def _finish(self, task: int) -> None:
        """The task has run: count, and see what this changes for others."""
        self.rank[task] = self.finished
        self.finished += 1
        users = self.dependents[task]
        kept = self.kept[task]
        if kept:
            self.alive += 1
            share = WHOLE // len(users)
            if self.unreached[task] < 0 and share != self.given[task]:
                more = share - self.given[task]
                for user in users:
                    self.credit[user] += more
            self.given[task] = share
        if self.uses[task] == 1:
            self.frees[users[0]] += 1
        for user in users:
            self.missing[user] -= 1
        for dependency in self.dependencies[task]:
            uses = self.uses[dependency] - 1
            self.uses[dependency] = uses
            self.users_sum[dependency] -= task
            if uses == 1:
                user = self.users_sum[dependency]
                self.frees[user] += 1
                if self.kept[dependency]:
                    self.credit[user] += WHOLE - self.given[dependency]
                self._offer(user)
            elif not uses:
                self.alive -= self.kept[dependency]
        self.area += self.alive
        if self.alive > self.peak:
            self.peak = self.alive
        if self.unreached[task] >= 0:
            self._reach(task)
        for user in users:
            self._offer(user)

    def _reach(self, root: int) -> None:
        """A root has run: what depends on nothing else that is out of reach is now within reach."""
        self.unreached[root] = -1
        reached: list[int] = [root]
        bargains: list[int] = []
        for task in reached:
            users = self.dependents[task]
            if not users:
                continue
            if task != root and self.kept[task]:
                self.given[task] = self.credit[task] // len(users)
            share = self.given[task]
            for user in users:
                self.credit[user] += share
                self.unreached[user] -= 1
                if not self.unreached[user]:
                    self.unreached[user] = -1
                    gain = self.credit[user] + ROUNDING - self.kept[user] * WHOLE
                    if gain >= self.gain and len(self.dependencies[user]) > 1:
                        bargains.append(user)
                        if gain < GAIN and self.kept[user]:
                            self.doubts += 1
                    reached.append(user)
                if task != root:
                    self._offer(user)
        bargains.reverse()
        self.bargains.extend(bargains)

    def _offer(self, task: int) -> None:
        """Put a task where it will be found, after something about it has changed."""
        if self.rank[task] >= 0:
            return
        if not self.missing[task] and self.kept[task] < self.frees[task]:
            self.profitable.append(task)
            return
        price = (self.kept[task] * WHOLE - self.credit[task]) >> QUARTER_BITS
        unreached = self.unreached[task]
        if price < -HIGHEST_PRICE:
            price = -HIGHEST_PRICE
        if unreached > MOST_MISSING:
            unreached = MOST_MISSING
        elif unreached < 0:
            unreached = 0
        entry = (((price + HIGHEST_PRICE << MISSING_BITS) + unreached) << TASK_BITS) + task
        if entry != self.entry[task]:
            self.entry[task] = entry
            heappush(self.heap, entry)
