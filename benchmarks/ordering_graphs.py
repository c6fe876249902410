"""Task graphs as people make them with dask, for whoever wants to order, schedule or simulate them.

``GRAPHS[name](scale)`` makes collections; ``build(name, scale, fused)`` the low-level graph that a client would see, as a
:class:`Graph`. A graph's number of tasks grows about linearly with ``scale``; at 1 there are some hundreds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
from dask._task_spec import convert_legacy_graph
from dask.core import flatten

Makers = dict[str, Callable[[int], Any]]
GRAPHS: Makers = {}


@dataclass(frozen=True)
class Graph:
    """A graph by keys and by numbers: task ``i`` is ``keys[i]`` and depends on ``dependencies[i]``."""

    nodes: dict[Any, Any]
    keys: list[Any]
    dependencies: list[list[int]]
    #: The tasks whose results somebody asked for.
    wanted: list[int]


def graph(make: Callable[[int], Any]) -> Callable[[int], Any]:
    GRAPHS[make.__name__] = make
    return make


def build(name: str, scale: int = 1, fused: bool = True) -> Graph:
    """What is needed of the graph, numbered as the tasks came, with dask's optimisation or without fusion."""
    made = GRAPHS[name](scale)
    collections = list(made) if isinstance(made, (list, tuple)) else [made]
    frames = isinstance(collections[0], (dd.DataFrame, dd.Series, dd.Scalar))
    if frames:
        collections = [collection.optimize(fuse=fused) for collection in collections]
    elif fused:
        collections = list(dask.optimize(*collections))
    raw: dict[Any, Any] = {}
    wanted_keys: dict[Any, None] = {}
    for collection in collections:
        raw.update(dict(collection.__dask_graph__()))
        wanted_keys.update(dict.fromkeys(flatten(collection.__dask_keys__())))
    return number(convert_legacy_graph(raw), list(wanted_keys))


def number(nodes: dict[Any, Any], wanted_keys: list[Any]) -> Graph:
    needed: set[Any] = set()
    stack = list(wanted_keys)
    while stack:
        key = stack.pop()
        if key not in needed:
            needed.add(key)
            stack.extend(nodes[key].dependencies)
    keys = [key for key in nodes if key in needed]
    numbers = {key: i for i, key in enumerate(keys)}
    dependencies = [sorted([numbers[dependency] for dependency in nodes[key].dependencies]) for key in keys]
    return Graph({key: nodes[key] for key in keys}, keys, dependencies, [numbers[key] for key in wanted_keys])


def square(chunks: int) -> da.Array:
    """A square of ``chunks`` by ``chunks`` blocks."""
    return da.ones((4 * chunks, 4 * chunks), chunks=(4, 4))


def side(blocks: int) -> int:
    return max(2, isqrt(blocks))


def frame(partitions: int) -> Any:
    return dd.from_map(
        read_part, list(range(partitions)), meta=read_part(0), divisions=[3 * i for i in range(partitions)] + [3 * partitions - 1]
    )


def read_part(i: int) -> pd.DataFrame:
    return pd.DataFrame({"a": [i, 1, 2], "b": [1.0, 2.0, 3.0], "c": [1, 1, 2]}, index=[3 * i, 3 * i + 1, 3 * i + 2])


# Reductions


@graph
def sum_1d(scale: int) -> Any:
    return da.ones(400 * scale, chunks=1).sum()


@graph
def mean_2d(scale: int) -> Any:
    return square(side(250 * scale)).mean()


@graph
def std_one_axis(scale: int) -> Any:
    return square(side(200 * scale)).std(axis=0)


@graph
def sum_binary_tree(scale: int) -> Any:
    return da.ones(256 * scale, chunks=1).sum(split_every=2)


@graph
def several_reductions(scale: int) -> Any:
    x = square(side(100 * scale))
    return x.sum(), x.mean(), x.std(), x.max()


@graph
def normalised(scale: int) -> Any:
    """All of the data is needed twice: once for the mean and deviation, once to apply them."""
    x = square(side(100 * scale)) + 1
    return ((x - x.mean(axis=0)) / x.std(axis=0)).sum()


@graph
def cumsum(scale: int) -> Any:
    return da.ones(150 * scale, chunks=1).cumsum(axis=0)


@graph
def cumsum_2d(scale: int) -> Any:
    return square(side(100 * scale)).cumsum(axis=0).sum()


# Blocks meet blocks


@graph
def add_transpose(scale: int) -> Any:
    x = square(side(150 * scale)) + 1
    return (x + x.T).sum()


@graph
def add_transpose_kept(scale: int) -> Any:
    x = square(side(150 * scale)) + 1
    return x + x.T


@graph
def matmul(scale: int) -> Any:
    x, y = square(round((150 * scale) ** (1 / 3))), square(round((150 * scale) ** (1 / 3))) + 1
    return x @ y


@graph
def matmul_sum(scale: int) -> Any:
    x = square(round((150 * scale) ** (1 / 3))) + 1
    return (x @ x.T).sum()


@graph
def tensordot(scale: int) -> Any:
    x = square(round((150 * scale) ** (1 / 3))) + 1
    return da.tensordot(x, x, axes=((0,), (0,))).mean(axis=0)


@graph
def matvec(scale: int) -> Any:
    x = square(side(100 * scale))
    return x.dot(x.dot(da.ones(x.shape[1], chunks=4)))


@graph
def covariance(scale: int) -> Any:
    x = square(side(60 * scale)) + 1
    x = x - x.mean(axis=0)
    return x.T.dot(x) / (x.shape[0] - 1)


@graph
def outer_differences(scale: int) -> Any:
    """All pairs of blocks."""
    x = da.ones(4 * side(200 * scale), chunks=4) + 1
    return ((x[:, None] - x[None, :]) ** 2).sum(axis=1)


# Neighbours and other shapes


@graph
def overlap_1d(scale: int) -> Any:
    x = da.ones(4 * 60 * scale, chunks=4) + 1
    return x.map_overlap(lambda block: block, depth=1, boundary="reflect", dtype=x.dtype)


@graph
def overlap_2d(scale: int) -> Any:
    x = square(side(36 * scale)) + 1
    return x.map_overlap(lambda block: block, depth=1, boundary="none", dtype=x.dtype)


@graph
def overlap_2d_sum(scale: int) -> Any:
    x = square(side(36 * scale)) + 1
    return x.map_overlap(lambda block: block, depth=1, boundary="none", dtype=x.dtype).sum()


@graph
def stencil_slices(scale: int) -> Any:
    x = square(side(25 * scale)) + 1
    return x[1:-1, 1:-1] - (x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2]) / 4


@graph
def stencil_repeated(scale: int) -> Any:
    x = da.ones(4 * 30 * scale, chunks=4) + 1
    for _ in range(3):
        x = x.map_overlap(lambda block: block, depth=1, boundary="none", dtype=x.dtype)
    return x.sum()


@graph
def gradient(scale: int) -> Any:
    return da.gradient(square(side(49 * scale)) + 1, axis=1)


@graph
def vorticity(scale: int) -> Any:
    """Fields of a time series, their derivatives along two axes, and a mean over time."""
    shape, chunks = (10 * scale, 8, 12), (1, 4, 4)
    u, v = da.ones(shape, chunks=chunks) + 1, da.ones(shape, chunks=chunks) + 2
    dx = da.roll(v, 1, axis=2) - v
    dy = da.roll(u, 1, axis=1) - u
    return (dx - dy).mean(axis=0)


@graph
def rows_to_columns(scale: int) -> Any:
    n = side(2500 * scale)
    return (da.ones((n, n), chunks=(1, n)) + 1).rechunk((n, 1))


@graph
def rows_to_columns_sum(scale: int) -> Any:
    n = side(2500 * scale)
    return (da.ones((n, n), chunks=(1, n)) + 1).rechunk((n, 1)).sum(axis=0)


@graph
def rechunk_larger(scale: int) -> Any:
    return (square(side(150 * scale)) + 1).rechunk((12, 12))


@graph
def rechunk_smaller(scale: int) -> Any:
    n = side(25 * scale)
    return (da.ones((12 * n, 12 * n), chunks=(12, 12)) + 1).rechunk((4, 4))


@graph
def rechunk_shifted(scale: int) -> Any:
    n = side(60 * scale)
    return (da.ones((15 * n, 15 * n), chunks=(15, 15)) + 1).rechunk((10, 10)).mean()


@graph
def rechunk_in_stages(scale: int) -> Any:
    n = side(1600 * scale)
    x = da.ones((n, n, n), chunks=(1, n, n)) + 1
    return x.rechunk((n, 1, n)).rechunk((n, n, 1)).mean(axis=2)


@graph
def reshape(scale: int) -> Any:
    n = side(100 * scale)
    return da.ones((n, n, 6), chunks=(1, 2, 3)).reshape((n * n, 6)).sum(axis=1)


@graph
def every_other(scale: int) -> Any:
    return (square(side(100 * scale)) + 1)[::2, ::3].mean(axis=1)


# Linear algebra


@graph
def tsqr(scale: int) -> Any:
    return da.linalg.qr(da.ones((4 * 60 * scale, 4), chunks=(4, 4)) + 1)


@graph
def svd(scale: int) -> Any:
    return da.linalg.svd(da.ones((4 * 40 * scale, 4), chunks=(4, 4)) + 1)


@graph
def svd_compressed(scale: int) -> Any:
    return da.linalg.svd_compressed(da.ones((4 * 20 * scale, 8), chunks=(4, 4)), k=2, n_power_iter=2, seed=da.random.RandomState(1))


@graph
def cholesky(scale: int) -> Any:
    n = max(2, round((200 * scale) ** (1 / 3)))
    return da.linalg.cholesky(da.ones((4 * n, 4 * n), chunks=(4, 4)))


@graph
def linear_regression(scale: int) -> Any:
    """Steps of gradient descent over the same blocks of data."""
    x = da.ones((4 * 20 * scale, 4), chunks=(4, 4)) + 1
    y = da.ones(4 * 20 * scale, chunks=4)
    beta = da.zeros(4, chunks=4)
    for _ in range(4):
        beta = beta - 0.1 * x.T.dot(x.dot(beta) - y)
    return beta


@graph
def normal_equations(scale: int) -> Any:
    x = da.ones((4 * 50 * scale, 8), chunks=(4, 4)) + 1
    y = da.ones(4 * 50 * scale, chunks=4) + 1
    return x.T.dot(x), x.T.dot(y)


# Climate


def monthly(scale: int) -> da.Array:
    return da.ones((24 * max(1, scale), 8, 8), chunks=(1, 4, 8)) + 1


@graph
def climatology(scale: int) -> Any:
    """What a month differs from the mean of all months of its name; kept."""
    x = monthly(scale)
    return da.concatenate([x[month::12] - x[month::12].mean(axis=0) for month in range(12)])


@graph
def climatology_mean(scale: int) -> Any:
    x = monthly(scale)
    parts = [x[month::12] - x[month::12].mean(axis=0) for month in range(12)]
    return (da.concatenate(parts) ** 2).mean(axis=0)


@graph
def climatology_in_large_chunks(scale: int) -> Any:
    """The chunks in time do not end where a year does."""
    x = da.ones((60 * scale, 8, 8), chunks=(5, 4, 8)) + 1
    parts = [x[month::12] - x[month::12].mean(axis=0) for month in range(12)]
    return da.concatenate(parts).std(axis=0)


@graph
def mean_of_squares_and_product(scale: int) -> Any:
    """Two fields, three averages."""
    u, v = da.ones((8 * scale, 12, 8), chunks=(1, 4, 8)) + 1, da.ones((8 * scale, 12, 8), chunks=(1, 4, 8)) + 2
    return (u**2).mean(axis=0), (v**2).mean(axis=0), (u * v).mean(axis=0)


@graph
def anomalies_of_days(scale: int) -> Any:
    """The mean over everything is subtracted from everything, along two ways."""
    x = da.ones((10 * scale, 6, 4), chunks=(1, 2, 2)) + 1
    anomaly = x - x.mean(axis=0)
    return anomaly.max(axis=0), (anomaly**2).mean(axis=(1, 2))


# Data frames and bags


@graph
def groupby_tree(scale: int) -> Any:
    return frame(300 * scale).groupby("a").b.mean()


@graph
def groupby_split_out(scale: int) -> Any:
    return frame(50 * scale).groupby("a").b.sum(split_out=4)


@graph
def frame_statistics(scale: int) -> Any:
    df = frame(80 * scale)
    return df.a.sum(), df.b.mean(), df.c.max(), df.b.std()


@graph
def shuffle(scale: int) -> Any:
    return frame(side(250 * scale)).shuffle("a", shuffle_method="tasks")


@graph
def shuffle_in_stages(scale: int) -> Any:
    return frame(20 * scale).shuffle("a", shuffle_method="tasks", max_branch=4)


@graph
def merge_tasks(scale: int) -> Any:
    left, right = frame(side(80 * scale)), frame(side(80 * scale))
    return left.merge(right.assign(d=1), on="a", shuffle_method="tasks")


@graph
def merge_then_group(scale: int) -> Any:
    left, right = frame(side(60 * scale)), frame(side(60 * scale))
    return left.merge(right.assign(d=1), on="a", shuffle_method="tasks").groupby("c_x").d.sum()


@graph
def set_index_tasks(scale: int) -> Any:
    n = side(150 * scale)
    return frame(n).set_index("a", divisions=list(range(n + 1)), shuffle_method="tasks")


@graph
def rolling(scale: int) -> Any:
    return frame(100 * scale).b.rolling(2).mean()


@graph
def rolling_sum(scale: int) -> Any:
    return frame(80 * scale).b.rolling(3, center=True).mean().sum()


@graph
def filter_and_join_back(scale: int) -> Any:
    df = frame(60 * scale)
    return df[df.b > df.b.mean()].assign(e=df.a - df.a.min()).e.sum()


@graph
def frame_cumsum(scale: int) -> Any:
    return frame(60 * scale).b.cumsum()


@graph
def bag_foldby(scale: int) -> Any:
    return db.from_sequence(range(150 * scale), npartitions=150 * scale).foldby(lambda x: x % 2, lambda a, b: a + b, 0, lambda a, b: a + b)


@graph
def bag_groupby(scale: int) -> Any:
    bag = db.from_sequence(range(side(200 * scale)), npartitions=side(200 * scale))
    return bag.groupby(lambda x: x % 2, shuffle="tasks", npartitions=side(200 * scale))


@graph
def bag_frequencies(scale: int) -> Any:
    return db.from_sequence(range(120 * scale), npartitions=120 * scale).map(str).frequencies()


# By hand


def call(*parts: Any) -> Any:
    return dask.delayed(step, pure=False)(*parts)


def step(*parts: Any) -> int:
    return 0


def named(name: str, *parts: Any) -> Any:
    return dask.delayed(step)(*parts, dask_key_name=name)


@graph
def chains(scale: int) -> Any:
    results = []
    for i in range(20 * scale):
        x = named(f"load-{i}")
        for j in range(15):
            x = named(f"step-{i}-{j}", x)
        results.append(x)
    return named("total", *results)


@graph
def diamonds(scale: int) -> Any:
    x = named("start")
    for i in range(60 * scale):
        x = named(f"join-{i}", *[named(f"side-{i}-{j}", x) for j in range(4)])
    return x


@graph
def map_with_one_model(scale: int) -> Any:
    """Many tasks that share one large input, and a tree of their results."""
    model = named("model")
    level = [named(f"predict-{i}", named(f"prepare-{i}", named(f"load-{i}")), model) for i in range(60 * scale)]
    depth = 0
    while len(level) > 1:
        level = [named(f"merge-{depth}-{i}", *level[i : i + 3]) for i in range(0, len(level), 3)]
        depth += 1
    return level[0]


@graph
def cross_validation(scale: int) -> Any:
    """Folds by parameters: every model is fitted on all folds but one, and scored on that."""
    folds = [named(f"fold-{i}") for i in range(5)]
    best = []
    for p in range(20 * scale):
        scores = []
        for i in range(5):
            train = named(f"train-{i}", *folds[:i], *folds[i + 1 :])
            scores.append(named(f"score-{p}-{i}", named(f"fit-{p}-{i}", train), folds[i]))
        best.append(named(f"mean-{p}", *scores))
    return named("best", *best)


@graph
def butterfly(scale: int) -> Any:
    """The graph of a fast Fourier transform."""
    width = 1 << max(3, (32 * scale).bit_length() - 1)
    row = [named(f"in-{i}") for i in range(width)]
    distance = 1
    while distance < width:
        row = [named(f"fft-{distance}-{i}", row[i], row[i ^ distance]) for i in range(width)]
        distance *= 2
    return row


@graph
def lu(scale: int) -> Any:
    """Blocks of a matrix are factorised: the ones beside the diagonal, then the ones that remain, and again."""
    n = max(3, round((700 * scale) ** (1 / 3)))
    cells = {(i, j): named(f"block-{i}-{j}") for i in range(n) for j in range(n)}
    for k in range(n):
        cells[k, k] = named(f"factor-{k}", cells[k, k])
        for i in range(k + 1, n):
            cells[i, k] = named(f"lower-{i}-{k}", cells[i, k], cells[k, k])
            cells[k, i] = named(f"upper-{k}-{i}", cells[k, i], cells[k, k])
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                cells[i, j] = named(f"update-{i}-{j}-{k}", cells[i, j], cells[i, k], cells[k, j])
    return list(cells.values())


@graph
def wavefront(scale: int) -> Any:
    """Each cell needs those above and to the left, as in an alignment of two sequences."""
    n = side(300 * scale)
    cells: dict[tuple[int, int], Any] = {}
    for i in range(n):
        for j in range(n):
            near = [cells[at] for at in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if at in cells]
            cells[i, j] = named(f"cell-{i}-{j}", *near)
    return cells[n - 1, n - 1]


def layered(scale: int, seed: int, width: int, most: int, reach: int) -> Any:
    """Layers of ``width``; each task takes 1 to ``most`` of the layer before, no farther away than ``reach``."""
    chance = random.Random(seed)
    row = [named(f"r-{i}") for i in range(width)]
    for depth in range(1, 300 * scale // width):
        row = [
            named(
                f"l{depth}-{i}",
                *[row[j] for j in sorted({(i + chance.randint(-reach, reach)) % width for _ in range(chance.randint(1, most))})],
            )
            for i in range(width)
        ]
    return row


@graph
def random_narrow(scale: int) -> Any:
    return layered(scale, 1, 12, 3, 12)


@graph
def random_wide(scale: int) -> Any:
    return layered(scale, 2, 60, 3, 60)


@graph
def random_local(scale: int) -> Any:
    return layered(scale, 3, 60, 3, 2)


@graph
def random_sparse(scale: int) -> Any:
    return layered(scale, 4, 40, 2, 10)


@graph
def random_any(scale: int) -> Any:
    """Each task takes up to three of the fifty before it."""
    chance = random.Random(5)
    tasks: list[Any] = []
    for i in range(300 * scale):
        count = chance.randint(0, 3) if i else 0
        near = sorted({chance.randrange(max(0, i - 50), i) for _ in range(count)})
        tasks.append(named(f"t-{i}", *[tasks[j] for j in near]))
    return tasks[-5:]
