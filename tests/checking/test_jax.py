"""Targets on JAX arrays, where JAX is installed. Each new shape has to be compiled, so most are slow tests."""

import pytest

import normkit
from normkit.checking.run import examine

pytest.importorskip("jax")
pytestmark = pytest.mark.interop

PLANTED: dict[str, dict[str, str]] = {
    "layer_norm": {},
    "batch_norm_every_call_trains": {
        "half-accumulation": "warning",
        "rank-unsupported": "warning",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
    },
    "BatchNorm": {"momentum-inverted": "note", "biased-running-var": "note"},
    "LayerNormDetached": {"statistics-detached": "error"},
}
FAST = ("layer_norm",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in PLANTED]
)
def test_planted(name: str) -> None:
    import planted_jax

    report = examine(getattr(planted_jax, name))
    assert report.identity.library == "jax"
    assert {finding.code: finding.severity for finding in report.findings} == PLANTED[name]


@pytest.mark.slow
def test_object_in_memory_runs_here_since_a_fork_would_hang() -> None:
    import planted_jax

    report = normkit.check(planted_jax.layer_norm)
    assert report.findings == ()
    assert report.isolation == "none"
