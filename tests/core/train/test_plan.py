"""The plan's arithmetic against real counts: parameters, optimizer state, saved tensors, and torch's FLOP counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from roberta_core.hardware import GPUS, find_gpu, free_memory, measured_peak, used_memory
from roberta_core.model import RobertaConfig, RobertaForMaskedLM
from roberta_core.train import plan
from roberta_core.train.batches import BatchPlan
from roberta_core.train.masking import slots
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.recipes import recipe

CPU = torch.device("cpu")


def inputs(rows: int, length: int, vocabulary: int):
    """A batch of `rows` with every slot used."""
    places = torch.arange(rows)[:, None] * length + torch.arange(1, 1 + slots(length, 0.15))
    ids = torch.randint(4, vocabulary - 1, (rows, length))
    return ids, None, places.flatten(), ids.flatten()[places.flatten()]


@pytest.mark.parametrize("optimizer", ["adamw", "stable-adamw", "muon"])
def test_weights_and_optimizer_state_are_those_of_a_real_model(optimizer):
    config = RobertaConfig.named("tiny", 1000, 64, 0.1)
    model = RobertaForMaskedLM(config)
    assert plan.held_weights(config) == sum(each.numel() for each in model.parameters())
    optimizers = Optimizers(model, recipe("paper", "tiny", 10, optimizer=optimizer))
    model(*inputs(2, 64, 1000))[0].backward()
    optimizers.step(1e-3, torch.tensor(False), torch.tensor(1.0))
    held = sum(each.nbytes for each in optimizers.state().values() if each.dim())
    assert plan.memory(config, 64, 0.15, "fp32", optimizer, "cpu", 2).optimizer == held


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("dropout", [0.1, 0.0])
@pytest.mark.parametrize(("size", "length"), [("tiny", 64), ("mini", 128)])
def test_activations_are_what_autograd_saves(size, length, dropout, precision):
    config = RobertaConfig.named(size, 1000, length, dropout)
    model = RobertaForMaskedLM(config).train()
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def saved(rows: int) -> int:
        found, held = {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
                held.append(tensor)  # so that no other tensor gets its address
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        ):
            model(*inputs(rows, length, 1000))
        return sum(found.values())

    real = (saved(6) - saved(2)) / 4
    assert plan.sequence_bytes(config, length, 0.15, precision, "cpu") == pytest.approx(real, rel=0.07)


def test_flops_are_those_that_torch_counts():
    """The formula pays the head for the masked share alone; the batch has one slot a row more, and a padded vocabulary."""
    config = RobertaConfig.named("mini", 1024, 128, 0.0)
    model = RobertaForMaskedLM(config).train()
    with FlopCounterMode(display=False) as counter:
        model(*inputs(4, 128, 1024))[0].backward()
    share = slots(128, 0.15) / 128
    assert config.train_flops_per_token(128, share) * 4 * 128 == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_roberta_base_has_the_known_numbers():
    config = RobertaConfig.named("base", 50_265, 512, 0.1)
    assert config.parameters() == 124_697_433  # transformers counts the same for roberta-base with its head
    assert config.train_flops_per_token(512, 0.15) == pytest.approx(601e6, rel=0.005)
    assert plan.total_tokens(BatchPlan(8192, 8192), 500_000, 512) == 500_000 * 8192 * 512
    whole, shared = (plan.memory(config, 512, 0.15, "bf16", "adamw", "cuda", 1024, shards) for shards in (1, 8))
    assert whole.weights // 8 == shared.weights and whole.sequence == shared.sequence
    assert 1.9e9 < whole.weights + whole.gradients + whole.optimizer < 2.1e9


def test_what_fits():
    memory = plan.Memory(100, 100, 200, 50, 50, 10)
    assert memory.fitting(1000) == 40 and memory.fitting(500) == 0  # a tenth stays free
    assert [plan.micro_batch(fitting, 1024) for fitting in (0, 1, 40, 5000)] == [0, 1, 32, 1024]
    assert plan.seconds(10**12, 6e8, 1e15, 8, 0.4) == pytest.approx(6e20 / 3.2e15)


def test_gpus_are_found_by_the_names_of_drivers():
    assert find_gpu("NVIDIA H100 80GB HBM3") == find_gpu("h100") == GPUS["H100"]
    assert find_gpu("NVIDIA H100 PCIe") == GPUS["H100 PCIe"] != GPUS["H100"]
    assert find_gpu("NVIDIA L40S") == GPUS["L40S"] and find_gpu("NVIDIA A100-SXM4-40GB") == GPUS["A100"]
    assert find_gpu("Voodoo 2") is None


def test_this_machine_is_measured():
    assert 1e9 < measured_peak("fp32", 0.05, 256) < 1e14
    before = used_memory(CPU)
    block = torch.ones(32 << 20)  # 128 MB
    assert used_memory(CPU) - before > 100 << 20 and block.numel()
    assert free_memory(CPU) > 1 << 20
