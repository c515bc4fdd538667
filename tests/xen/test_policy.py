"""The policy on the sources of the very Xen that loads it: it compiles, and no rule that breaks a wall does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.assembly.load import ASSEMBLIES, VPN, load
from appliance.xsm import policy as generator
from appliance.xsm.compile import PolicyError
from tests.xen.rig import hypervisor

pytestmark = pytest.mark.timeout(1800)  # the first to come builds Xen

BREACHES = (
    "allow septum_red_t septum_keymgr_t:grant map_read;",  # an undeclared pair shares pages
    "allow septum_rng_t septum_keymgr_t:grant map_read;",  # the server of a channel maps the client's
    "allow septum_keymgr_t septum_rng_t:grant copy;",  # the client copies instead of mapping
    "allow septum_red_t_channel septum_keymgr_t:event bind;",  # an undeclared pair shares events
    "allow septum_rng_t dom0_t:grant map_read;",  # a guest has a page of dom0's
    "allow septum_red_t dom0_t:grant map_write;",  # even one with a network
    "allow septum_keymgr_t dom0_t:grant copy;",  # one without a network copies into such a page
    # Who is called from dom0, or has its disk kept there, gets nothing from it, nor from who else is
    "allow septum_filter_t dom0_t:grant map_read;",
    "allow septum_store_t dom0_t:grant { map_read map_write };",
    "allow septum_store_t dom0_t:mmu map_read;",
    "allow septum_filter_t_channel septum_store_t:event bind;",
    "allow dom0_t septum_store_t:mmu { map_read map_write };",  # nor dom0 more of it than what it grants
    "allow septum_log_t septum_red_t:domain pause;",  # one guest manages another
    "allow septum_log_t xen_t:xen readconsole;",  # or administers Xen
    "allow dom0_t septum_keymgr_t:mmu map_read;",  # dom0 reads the memory of a running domain
    "allow dom0_t septum_keymgr_t:domain getvcpucontext;",  # or its registers
    "allow dom0_t septum_keymgr_t:domain2 relabelfrom;",  # or makes it one being built
    "allow dom0_t security_t:security setenforce;",  # or stops enforcing
    "allow dom0_t security_t:security load_policy;",
    "allow dom0_t xen_t:xen kexec;",  # or replaces Xen
)


@pytest.fixture(scope="module")
def tree() -> Path:
    return hypervisor.with_xsm().flask


@pytest.mark.parametrize("name", ["vpn.toml", "vpn-managed.toml"])
def test_it_compiles(tree: Path, name: str) -> None:
    assembly = load(ASSEMBLIES / name)
    assert generator.compiled_policy(assembly, tree)
    assert generator.compiled_policy(assembly, tree, locked=False)


def test_the_command_makes_it_of_xens_sources(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "tools/flask/policy", ignore=lambda where, names: {"hypervisor"} & {*names})
    shutil.copytree(tree / "hypervisor", tmp_path / "xen/xsm/flask/policy")
    made = tmp_path / "made"
    command = ["-m", "appliance.cli.septum", "policy", "vpn", "--xen", tmp_path, "-o", made, "--json"]
    said = json.loads(subprocess.run([sys.executable, *command], check=True, capture_output=True).stdout)
    assert said["bytes"] == made.stat().st_size and "keymgr" in said["domains"]
    assert made.read_bytes() == generator.compiled_policy(load(VPN), tree)


@pytest.mark.parametrize("rule", BREACHES)
def test_a_rule_that_breaks_a_wall_is_refused(tree: Path, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generator.policy

    def with_breach(*arguments: object, **options: object) -> str:
        text = whole(*arguments, **options)  # type: ignore[arg-type]
        return text.replace("\nrole system_r types", f"\n{rule}\nrole system_r types")

    monkeypatch.setattr(generator, "policy", with_breach)
    with pytest.raises(PolicyError, match="neverallow"):
        generator.compiled_policy(load(VPN), tree)
