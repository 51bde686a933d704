"""Tools for the tests of plugins. `BackboneContract` needs pytest; the rest does not.

The tests of a plugin are one class::

    from toxbench.testing import BackboneContract, write_checkpoint


    class TestElectra(BackboneContract):
        @pytest.fixture
        def backbone(self):
            return toxbench_backbones()[0]

        @pytest.fixture(scope="class")
        def checkpoint(self, tmp_path_factory):
            return write_checkpoint(tmp_path_factory.mktemp("tiny"), "electra")
"""

from typing import TYPE_CHECKING, Any

from toxbench.testing.checkpoint import train_tokenizer, write_checkpoint

if TYPE_CHECKING:
    from toxbench.testing.contract import BackboneContract

__all__ = ["BackboneContract", "train_tokenizer", "write_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import `BackboneContract`, and with it pytest, on first access."""
    if name == "BackboneContract":
        from toxbench.testing.contract import BackboneContract

        return BackboneContract
    raise AttributeError(f"module 'toxbench.testing' has no attribute {name!r}")
