"""DeBERTa-v3 (He et al. 2021, arXiv:2111.09543), base."""

from toxbench import Backbone, TrainSettings, hookimpl


@hookimpl
def toxbench_backbones() -> list[Backbone]:
    """Register DeBERTa-v3. MiniLM cannot be its stand-in, because the attention differs."""
    return [
        Backbone(
            name="deberta-v3",
            checkpoint="microsoft/deberta-v3-base",
            model_type="deberta-v2",
            revision="refs/pr/4",  # the Hub's conversion to safetensors; main holds only pickles
            # The rate of the authors' example on the model's page.
            defaults=TrainSettings(learning_rate=2e-5, head_learning_rate=2e-4, epochs=5),
            head=("pooler", "classifier"),  # it was pretrained without a pooler
        )
    ]
