"""What all tests share: JAX on the CPU and strict about ranks, and what is slow to make."""

import importlib.metadata
import os
import tempfile

import cli

# Logs are prepared here, by all workers and every process that a test starts.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="diet_jax_cache_")
    os.environ["DIET_JAX_CACHE"] = _cache.name
    # What one process has compiled, no other needs to: workers and commands run the same programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(_cache.name, "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Before JAX is imported, and for every process that a test starts. With ranks strict, a label [B]
# against a logit [B, 1] is an error and not a loss over [B, B].
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# The two take away three quarters of the time to compile.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA exits on a flag it does not know
    os.environ.setdefault("XLA_FLAGS", cli.FASTER)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import toy  # noqa: E402

# A busy machine is no bug.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def x64():
    """Float64 for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def engine():
    """The compiled parts of `toy`'s stages."""
    return toy.engine()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All tests of a file go to one worker, since they share what one worker compiled."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
