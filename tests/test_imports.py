import subprocess
import sys

import pytest

BLOCKED = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torchvision", "torchaudio", "transformers", "diffusers"}:
            raise ImportError(f"{name} may not be needed")

sys.meta_path.insert(0, Blocked())
import diorama
names = [module.name for module in pkgutil.walk_packages(diorama.__path__, "diorama.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_module_imports_without_what_may_not_be_needed():
    done = run(BLOCKED)
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) > 40


@pytest.mark.parametrize("module", ["diorama", "diorama.cards", "diorama.errors", "diorama.files", "diorama.training.plan"])
def test_what_the_command_line_needs_first_is_light(module):
    done = run(f"import sys, {module}; print(*{{'torch', 'numpy', 'PIL', 'accelerate'}} & set(sys.modules))")
    assert (done.stdout.strip(), done.returncode) == ("", 0)


def test_systems_do_not_import_accelerate_until_they_train():
    done = run("import sys, diorama.systems.images.flow; sys.exit('accelerate' in sys.modules)")
    assert done.returncode == 0
