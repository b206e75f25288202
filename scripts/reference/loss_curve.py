"""The PyTorch half of `bun run loss-curve`: the same weights, tokens, order and learning rates, a bf16 model with float32
master weights and AdamW in float32. Reads DIR/run.json, DIR/tokens.bin and the Hugging Face directory DIR/model; writes
the loss of each step to DIR/pytorch.json. Runs on the GPU when there is one. Needs torch and transformers, no network.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
import transformers

directory = Path(sys.argv[1])
run = json.loads((directory / "run.json").read_text())
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = False

# The argument had another name before 4.56. Rotary frequencies stay float32 either way, as they would not with `.to`.
version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
dtype = {"dtype" if version >= (4, 56) else "torch_dtype": torch.bfloat16}
model = transformers.AutoModelForCausalLM.from_pretrained(
    directory / "model", attn_implementation="sdpa", local_files_only=True, **dtype
).to(device)
model.train()
model.config.use_cache = False

parameters = list(model.parameters())  # a tied matrix is listed once
masters = [parameter.detach().float().clone() for parameter in parameters]
decayed = [master for master in masters if master.dim() > 1]
plain = [master for master in masters if master.dim() == 1]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": run["weightDecay"]}, {"params": plain, "weight_decay": 0.0}],
    lr=run["rates"][0],
    betas=(run["beta1"], run["beta2"]),
    eps=run["epsilon"],
)

tokens = torch.from_numpy(numpy.fromfile(directory / "tokens.bin", dtype=numpy.int32)).long()
rows = tokens.view(len(run["rates"]), run["rows"], run["sequence"]).to(device)
losses = []
for step, rate in enumerate(run["rates"]):
    ids = rows[step]
    logits = model(input_ids=ids).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    for master, parameter in zip(masters, parameters):
        master.grad = parameter.grad.float()
        parameter.grad = None
    torch.nn.utils.clip_grad_norm_(masters, run["maxGradNorm"])
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    with torch.no_grad():
        for master, parameter in zip(masters, parameters):
            parameter.copy_(master)
    losses.append(loss.item())

(directory / "pytorch.json").write_text(json.dumps(losses))
