"""Random lives of a worker: whatever comes in whatever order, the state never contradicts itself and nothing is left over."""

from random import Random

import pytest

KEYS = "abcdefgh"
PEERS = (1, 2, 3)


class Life:
    """A scheduler, an executor and peers that do anything they are allowed to do."""

    def __init__(self, env, seed):
        self.env = env
        self.random = Random(seed)
        self.attempt = 0
        self.open = {}  # key -> attempt that the scheduler waits for
        self.questions = []
        self.seceded = set()
        env.meet(*PEERS)

    def step(self):
        self.settle_questions()
        actions = [self.compute, self.compute, self.drop, self.take_back, self.replicate, self.finish, self.finish, self.answer]
        actions += [self.answer, self.trouble, self.executor_says, self.scheduler_helps, self.tick, self.put, self.pause]
        self.random.choice(actions)()
        self.settle_questions()
        self.listen()

    def listen(self):
        for row in self.env.said():
            if row[0] in ("finished", "erred", "given back", "rescheduled"):
                assert self.open.get(row[1]) == row[2], f"{row}, but the scheduler waits for {self.open}"
                del self.open[row[1]]
            elif row[0] in ("started", "seceded"):
                assert self.open.get(row[1]) == row[2]
            if row[0] in ("given back", "kept"):
                self.questions.remove(row[1])

    def settle_questions(self):
        """The shell answers at once, before any other event."""
        if self.env.to_take_back:
            taken = "".join({key: None for key in self.env.to_take_back if key in self.env.executing and self.random.random() < 0.5})
            kept = "".join(key for key in self.env.to_take_back if key not in taken)
            self.env.to_take_back = list(taken + kept)
            self.env.answer_take_back(taken, kept)

    def compute(self):
        key = self.random.choice(KEYS)
        self.attempt += 1
        # Dependencies are fixed for a key, as they are for an id; letters below it.
        needs = "".join(other for other in KEYS[: KEYS.index(key)] if (ord(other) + ord(key)) % 3 == 0)
        at = {name: self.some_peers() for name in needs}
        options = {"resources": {"GPU": 1}} if ord(key) % 2 else {}
        self.open[key] = self.attempt
        self.env.compute(key, self.attempt, needs=needs, at=at, priority=self.random.randrange(5), **options)

    def some_peers(self):
        return self.random.sample([*PEERS, 9, 77], self.random.randint(1, 3))

    def drop(self):
        keys = "".join(self.random.sample(KEYS, self.random.randint(1, 3)))
        for key in keys:
            self.open.pop(key, None)
        self.env.drop(keys)

    def take_back(self):
        key = self.random.choice(KEYS)
        self.questions.append(key)
        self.env.take_back(key, self.open.get(key, 0))

    def replicate(self):
        self.env.replicate(self.random.choice(KEYS), self.some_peers())

    def put(self):
        self.env.put(self.random.choice(KEYS))

    def pause(self):
        self.env.pause(self.random.random() < 0.5)

    def finish(self):
        if self.env.executing:
            key = self.random.choice(list(self.env.executing))
            self.seceded.discard(key)
            self.env.finish(key)

    def executor_says(self):
        if self.env.executing:
            key = self.random.choice(list(self.env.executing))
            says = self.random.choice(["start", "secede", "fail", "reschedule", "unready"])
            if says == "unready" and key in self.seceded:
                return
            if says == "secede":
                self.seceded.add(key)
            getattr(self.env, says)(key)
            self.seceded &= self.env.executing.keys()

    def answer(self):
        if self.env.requests:
            peer = self.random.choice(list(self.env.requests))
            answers = {"got": "", "missing": "", "failed": "", "": ""}
            for key in self.env.requests[peer]:
                answers[self.random.choice(["got", "got", "missing", "failed", ""])] += key
            del answers[""]
            self.env.arrive(peer, **answers)

    def trouble(self):
        if self.env.requests:
            peer = self.random.choice(list(self.env.requests))
            self.random.choice([self.env.busy, self.env.unreachable])(peer)
        elif self.random.random() < 0.3:
            self.env.gone(PEERS[0])

    def scheduler_helps(self):
        self.env.holders_changed(self.random.choice(KEYS), self.some_peers())

    def tick(self):
        if self.env.wake_at > self.env.now:
            self.env.wait_until_wanted()

    def end(self):
        self.env.pause(False)
        self.open.clear()
        self.env.drop(KEYS)
        for _ in range(100):
            self.settle_questions()
            if self.env.executing:
                self.env.finish(next(iter(self.env.executing)))
            elif self.env.requests:
                peer = next(iter(self.env.requests))
                self.env.arrive(peer, got="".join(self.env.requests[peer]))
            else:
                break
        self.listen()


@pytest.mark.parametrize("seed", range(100))
def test_any_life(make_env, seed):
    env = make_env({"GPU": 1.0}, max_outgoing=2, max_request_bytes=25, fetch_budget_bytes=35)
    life = Life(env, seed)
    for _ in range(150):
        life.step()
    life.end()
    assert env.is_idle(), (env.core.state.tasks, env.executing, env.requests, env.store, env.sent)
    assert not life.questions
    assert env.core.state.available == {"GPU": 1.0}
    assert env.core.state.outgoing == 0
    assert env.core.statistics().states == {}
