"""The environment of every child process: nothing phones home, no secret goes along."""

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from cai.secrets import is_secret

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    # transformers, datasets, huggingface-hub and TRL
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Every model of a child is a local folder: whatever still asks the hub is a mistake.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # The token that `hf auth login` has left in a file is not read either.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # A file torch.py in the user's folder must not become the torch of a child.
    "PYTHONSAFEPATH": "1",
}
LOOPBACK = Path("/sys/class/net/lo")
KEEP_MEMORY = {
    # glibc returns large tensors to the kernel at once and pays page faults to get them back:
    # a LoRA step of a 135M model on 2 cores took 6.6 s, with these 5.0 s
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


ON_LOOPBACK = {
    # one machine talks to itself: vLLM would ask for a route to 8.8.8.8 and listen on that address
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}


def child_environment(reporters: Collection[str] = (), **more: str) -> dict[str, str]:
    """The environment of a child. The user's own settings win over `KEEP_MEMORY`, `ON_LOOPBACK`.

    Variables that hold a secret stay behind, but for those of the `reporters` that a trainer was
    told to report to (`wandb`: WANDB_API_KEY; `all`: every one).
    """
    usual = ({} if n_gpus() else KEEP_MEMORY) | (ON_LOOPBACK if LOOPBACK.exists() else {})
    theirs = tuple(f"{name.split('_')[0].upper()}_" for name in reporters)
    given = {
        name: value
        for name, value in os.environ.items()
        if "all" in reporters or name.startswith(theirs) or not is_secret(name, value)
    }
    env = usual | given | more | TELEMETRY_OFF
    root = Path(__file__).parents[1]
    if root.name != "site-packages":
        # PYTHONSAFEPATH takes the current folder off the path: a source checkout must stay on it.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), env.get("PYTHONPATH")]))
    return env


def n_gpus() -> int:
    """How many NVIDIA GPUs a child will see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = visible.split(",")
        # CUDA stops reading at the first invalid entry
        return next((i for i, name in enumerate(names) if name.strip() in ("", "-1")), len(names))
    driver = Path("/proc/driver/nvidia/gpus")
    if driver.is_dir():
        return len(list(driver.iterdir()))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listing = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
