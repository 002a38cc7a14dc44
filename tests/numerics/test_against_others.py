"""Third-party implementations of DFT give the same loss on the same ids."""

import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from offsft.config.objective import Dft
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack

ROWS = [
    Row("a", "self", [5, 6, 7], [8, 9, 10, 11]),
    Row("b", "guided", [12, 13], [14, 15]),
    Row("c", "expert", [16], [17, 18, 19, 20, 21, 22]),
]
TOKENS = sum(len(row.response_ids) for row in ROWS)


def our_loss(model_folder):
    """Mean loss, and its gradient with respect to the token embedding."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    loss = loss_of(PolicyLoss(model, Dft()), pack(ROWS, [0, 1, 2])).loss / TOKENS
    loss.backward()
    return loss.detach(), model.get_input_embeddings().weight.grad


def test_trl(tiny_model, tmp_path):
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        warnings.warn(f"DFT was NOT compared with TRL's, which is not installed: {error}", stacklevel=1)
        pytest.skip(f"TRL is not installed: {error}")
    rows = [
        {
            "input_ids": row.prompt_ids + row.response_ids,
            "labels": [-100] * len(row.prompt_ids) + row.response_ids,
        }
        for row in ROWS
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=str(tmp_path),
            loss_type="dft",
            per_device_train_batch_size=len(ROWS),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
        ),
    )
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    want_loss, want_gradient = our_loss(tiny_model)
    torch.testing.assert_close(loss.detach(), want_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(trainer.model.get_input_embeddings().weight.grad, want_gradient, rtol=1e-4, atol=1e-7)


def test_the_formula_of_the_papers_trainer(tiny_model):
    """Cross-entropy over shifted labels times the label's probability, as in the trainer of NKU-HLT/Off-Policy-SFT."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = torch.zeros(())
    for row in ROWS:
        ids = torch.tensor([row.prompt_ids + row.response_ids])
        labels = torch.tensor([-100] * len(row.prompt_ids) + row.response_ids)[1:]
        logits = model(ids).logits[0, :-1]
        entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
        probability = logits.softmax(-1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
        total = total + (entropy * probability.detach())[labels != -100].sum()
    loss = total / TOKENS
    loss.backward()
    want_loss, want_gradient = our_loss(tiny_model)
    torch.testing.assert_close(loss.detach(), want_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, want_gradient, rtol=1e-4, atol=1e-7)
