"""Remove those of NVIDIA's files that PyTorch runs without on a machine that has no GPU.

The wheels of PyPI are linked with NVIDIA's libraries, and cannot be imported without them; but more than half of what
they install is opened only when there is a GPU.
"""

import subprocess
import sys
from pathlib import Path

import torch

torch.nn.Linear(2, 1)(torch.ones(1, 2)).sum().backward()
opened = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if "/nvidia/" in line}
packages = Path(torch.__file__).parents[1] / "nvidia"
for file in packages.rglob("*"):
    if file.is_file() and file.suffix != ".py" and file.resolve() not in opened:
        file.unlink()
# An image that cannot do this is none.
subprocess.run([sys.executable, "-c", "import torch; torch.ones(1, requires_grad=True).sum().backward()"], check=True)
