"""Clipping inside the update is torch's clipping before it."""

import pytest
import torch

from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.recipes import recipe


@pytest.mark.parametrize("optimizer", ["adamw", "stable-adamw", "muon"])
@pytest.mark.parametrize("times", [0.5, 40.0])
def test_gradients_are_clipped_as_torch_does(optimizer, times):
    """Gradients of `times` the allowed norm. AdamW's first update does not see their size, so there are three."""
    chosen = recipe("paper", "tiny", 10, optimizer=optimizer, clip_norm=0.7, eps=1e-3)
    models = [RobertaForMaskedLM(RobertaConfig.named("tiny", 300, 24, 0.0), seed=1) for _ in range(2)]
    ours, plain = (Optimizers(model, chosen) for model in models)
    generator = torch.Generator().manual_seed(2)
    for factor in (1.0, times, 0.3):
        drawn = [torch.randn(each.shape, generator=generator) for each in models[0].parameters()]
        length = torch.nn.utils.get_total_norm(drawn)
        for model in models:
            for each, value in zip(model.parameters(), drawn):
                each.grad = value * (0.7 * factor / length)
        norm = torch.nn.utils.get_total_norm([each.grad for each in models[0].parameters()])
        ours.step(1e-2, torch.tensor(False), norm)
        torch.nn.utils.clip_grad_norm_(models[1].parameters(), 0.7)
        plain.step(1e-2, torch.tensor(False), torch.tensor(0.0))
    for mine, theirs in zip(models[0].parameters(), models[1].parameters()):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)
