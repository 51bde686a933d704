"""Tests for plugin authors. Needs pytest; ``import toxbench`` alone does not.

A plugin's tests are one class::

    from toxbench.testing import BackboneContract, write_checkpoint


    class TestElectra(BackboneContract):
        @pytest.fixture
        def backbone(self):
            return toxbench_backbones()[0]

        @pytest.fixture(scope="class")
        def checkpoint(self, tmp_path_factory):
            return write_checkpoint(tmp_path_factory.mktemp("tiny"), "electra")
"""

from toxbench.testing.checkpoint import train_tokenizer, write_checkpoint
from toxbench.testing.contract import BackboneContract

__all__ = ["BackboneContract", "train_tokenizer", "write_checkpoint"]
