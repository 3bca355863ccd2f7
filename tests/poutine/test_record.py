"""Records: streaming moments that merge, move, and look once at what all rows share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_vdn.nn import ConditionalNormal, LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import LayerRecord, PosteriorMessenger, StreamingMoments, record
from pyro_vdn.testing import randomise

MOMENTS = ("loc", "scale", "variance", "energy", "prior_variance", "kl")
FURTHER = ("latent_loc", "latent_scale", "latent_variance", "energy_about_prior")


def moments_of(*batches: Tensor) -> StreamingMoments:
    moments = StreamingMoments()
    for batch in batches:
        moments.update(batch)
    return moments


def assert_same(mine: StreamingMoments, values: Tensor) -> None:
    """Moments are those of all rows at once."""
    rows = values.reshape(-1, values.shape[-1])
    assert mine.count == len(rows)
    torch.testing.assert_close(mine.mean, rows.mean(0))
    torch.testing.assert_close(mine.variance, rows.var(0, correction=0))
    error = rows.std(0, correction=0) / len(rows) ** 0.5
    torch.testing.assert_close(mine.standard_error, error)


# --- streaming moments ---


@pytest.mark.parametrize("sizes", [[7], [1, 1, 1], [2, 5], [100, 1, 30]])
def test_batches_add_up(sizes: list[int]) -> None:
    values = 5 + torch.randn(sum(sizes), 3)
    assert_same(moments_of(*values.split(sizes)), values)


def test_every_leading_dimension_counts_as_rows() -> None:
    values = torch.randn(4, 5, 3)
    assert_same(moments_of(values), values)


def test_nothing_seen() -> None:
    moments = moments_of(torch.zeros(0, 3))
    assert moments.count == 0
    assert moments.mean.tolist() == moments.variance.tolist() == 0.0


@pytest.mark.parametrize("sizes", [(1, 1), (3, 9), (0, 4), (4, 0)])
def test_merging_equals_seeing_all(sizes: tuple[int, int]) -> None:
    values = 5 + torch.randn(sum(sizes), 3)
    left, right = (moments_of(part) for part in values.split(list(sizes)))
    kept = right.count, right.mean.clone(), right.variance.clone()
    left.merge(right)
    assert_same(left, values)
    assert (right.count, right.mean.tolist(), right.variance.tolist()) == (
        kept[0],
        kept[1].tolist(),
        kept[2].tolist(),
    )


def test_merging_nothing_with_nothing() -> None:
    moments = StreamingMoments()
    moments.merge(StreamingMoments())
    assert moments.count == 0


def test_large_values_lose_no_digits() -> None:
    values = 1e8 + torch.randn(1000, 2)
    torch.testing.assert_close(
        moments_of(*values.split(10)).variance, values.var(0, correction=0), rtol=1e-6, atol=0
    )


SHARED: dict[str, Callable[[], Tensor]] = {
    "a number": lambda: torch.tensor(2.0).expand(6, 3),
    "a number per unit": lambda: torch.tensor([1.0, 2.0, 3.0]).expand(6, 3),
    "a number per row": lambda: torch.arange(6.0)[:, None].expand(6, 3),
    "rows, for every particle": lambda: torch.randn(6, 3).expand(4, 6, 3),
    "particles, for every row": lambda: torch.randn(4, 1, 3).expand(4, 6, 3),
    "nothing": lambda: torch.randn(6, 3),
    "a slice": lambda: torch.randn(9, 3)[2:8],
    "a transposed view": lambda: torch.randn(3, 6).mT,
    "every other unit": lambda: torch.randn(6, 6)[:, ::2],
}


@pytest.mark.parametrize("name", SHARED)
def test_what_rows_share_counts_for_each_of_them(name: str) -> None:
    first, values = torch.randn(2, 3), SHARED[name]()
    assert_same(moments_of(first, values), torch.cat([first, values.reshape(-1, 3)]))


def test_what_rows_share_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    mean = Tensor.mean

    def note(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        looked.append(self.shape)
        return mean(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "mean", note)
    moments_of(torch.tensor([1.0, 2.0, 3.0]).expand(1000, 3))
    assert looked == [(1, 3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    values = (200 + torch.randn(5000, 2)).to(dtype)
    moments = moments_of(*values.split(100))
    exact = values.double()
    assert moments.mean.dtype == torch.float32
    torch.testing.assert_close(moments.mean.double(), exact.mean(0), rtol=1e-5, atol=0)
    expected = exact.var(0, correction=0)
    torch.testing.assert_close(moments.variance.double(), expected, rtol=1e-3, atol=0)


def test_moments_hold_no_graph() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    assert not moments_of(values, 2 * values).mean.requires_grad


# --- records of a layer ---


def make_layer(**parts: Any) -> VariationalNeurons:
    layer = VariationalNeurons(4, 3, **parts)
    randomise(layer)
    return layer


def seen_by(layer: VariationalNeurons, *batches: Tensor) -> LayerRecord:
    with record() as seen, PosteriorMessenger():
        for batch in batches:
            layer(batch)
    layer_record: LayerRecord = seen[""]
    return layer_record


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("scale", ["shared", "unit", "input"])
@pytest.mark.parametrize("make_prior", [LearnedNormal, ConditionalNormal])
def test_all_quantities(make_prior: Any, scale: Any, latent_dim: int) -> None:
    parts = {"posterior": NormalPosterior(scale), "prior": make_prior()}
    layer, x = make_layer(latent_dim=latent_dim, **parts), torch.randn(9, 4)
    seen = seen_by(layer, x[:2], x[2:])
    with torch.no_grad():
        q, p = layer.posterior(x), layer.prior(x)
        t, n = p.variance.sqrt().expand(q.mean.shape), p.mean
        m, s = q.mean, q.variance.sqrt()
        kl = torch.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    parts_by_name = {"loc": m, "scale": s, "variance": s**2, "energy": m**2, "prior_variance": t**2}
    for name, values in parts_by_name.items():
        assert_same(getattr(seen, name), values.mean(-1) if latent_dim > 1 else values)
    assert_same(seen.kl, kl.sum(-1) if latent_dim > 1 else kl)
    shifted = (m - n) ** 2
    assert_same(seen.energy_about_prior, shifted.mean(-1) if latent_dim > 1 else shifted)

    latents = {"loc": m, "scale": s, "variance": s**2} if latent_dim > 1 else {}
    for name, values in latents.items():
        assert_same(getattr(seen, f"latent_{name}"), values.expand(m.shape).flatten(-2))
    assert (seen.latent_loc.count > 0) == (latent_dim > 1)


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_about_a_standard_normal_the_energy_is_measured_once(latent_dim: int) -> None:
    seen = seen_by(make_layer(latent_dim=latent_dim), torch.randn(9, 4))
    assert seen.energy_about_prior is seen.energy
    assert seen.shifted_energy.count == 0


def test_records_merge_in_all_quantities() -> None:
    layer, x = make_layer(prior=ConditionalNormal(), latent_dim=2), torch.randn(9, 4)
    left, right, whole = seen_by(layer, x[:4]), seen_by(layer, x[4:]), seen_by(layer, x)
    left.merge(right)
    for name in (*MOMENTS, *FURTHER):
        mine, theirs = getattr(left, name), getattr(whole, name)
        assert mine.count == theirs.count == 9
        torch.testing.assert_close(mine.mean, theirs.mean)
        torch.testing.assert_close(mine.variance, theirs.variance)


def test_a_record_that_has_moved_is_one_of_its_own() -> None:
    layer, x = make_layer(), torch.randn(9, 4)
    seen = seen_by(layer, x)
    moved = seen.to("cpu")
    for name in MOMENTS:
        mine, theirs = getattr(moved, name), getattr(seen, name)
        assert mine.count == 9
        assert torch.equal(mine.mean, theirs.mean)
        assert torch.equal(mine.variance, theirs.variance)
    assert not hasattr(moved, "last_loc")
    before = seen.kl.mean.clone()
    moved.merge(seen_by(layer, torch.randn(3, 4)))
    assert (seen.kl.count, moved.kl.count) == (9, 12)
    assert torch.equal(seen.kl.mean, before)


def test_moving_reaches_every_moment() -> None:
    moved = seen_by(make_layer(latent_dim=2), torch.randn(9, 4)).to("meta")
    for name in (*MOMENTS, *FURTHER):
        assert getattr(moved, name).mean.device.type == "meta"
        assert getattr(moved, name).variance.device.type == "meta"


class Flat(nn.Module):
    """A prior that is no normal, of variance 3."""

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Uniform(torch.tensor(-3.0), torch.tensor(3.0), validate_args=False)


def test_the_variance_of_a_prior_that_is_no_normal() -> None:
    seen = seen_by(make_layer(prior=Flat()), torch.randn(9, 4))
    torch.testing.assert_close(seen.prior_variance.mean, torch.full((3,), 3.0))


def test_under_mixed_precision() -> None:
    layer, x = make_layer().float(), torch.randn(64, 4, dtype=torch.float32)
    plain = seen_by(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = seen_by(layer, x)
    for name in MOMENTS:
        assert getattr(mixed, name).mean.dtype == torch.float32
        torch.testing.assert_close(
            getattr(mixed, name).mean, getattr(plain, name).mean, rtol=2e-2, atol=2e-3
        )
