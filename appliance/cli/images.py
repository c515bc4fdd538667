"""`septum image`: build, list and show the images that domains on Xen boot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from appliance.cli import building, helping, screen
from appliance.cli.options import Json
from appliance.image.manifest import INDEX, Image, ImageError, image

app = helping.App(
    name="image",
    help="Images for Xen: for each role one kernel and one initramfs with that component and nothing else in it.",
    no_args_is_help=True,
)

Store = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of images; /var/lib/septum/images for root, else ~/.cache/septum/images."),
]


def _store(said: Path | None) -> Path:
    if said is not None:
        return said
    return Path("/var/lib/septum/images") if os.geteuid() == 0 else Path.home() / ".cache/septum/images"


@contextmanager
def _display() -> Iterator[Callable[[str, str, float], None]]:
    """On a terminal a bar for each image and kernel; elsewhere a line whenever something is done."""
    if not screen.err.is_terminal:
        begun = time.monotonic()

        def line(name: str, doing: str, share: float) -> None:
            if share == 1:
                screen.err.print(f"{time.monotonic() - begun:6.1f} s  {name}: {doing}")

        yield line
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:14}"),
        BarColumn(24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", style="dim", markup=False),
    )
    with Progress(*columns, console=screen.err) as progress:
        tasks: dict[str, Any] = {}

        def bar(name: str, doing: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=1, doing="")
            progress.update(tasks[name], completed=share, doing=doing[:60])

        yield bar


def _figures(name: str, of: Image) -> dict[str, Any]:
    contents = of.contents()
    kernel, ramdisk = contents["kernel"], contents["ramdisk"]
    return {
        "name": name,
        "role": contents["role"],
        "kernel": kernel["flavour"],
        "kernel_bytes": kernel["compressed_bytes"],
        "ramdisk_bytes": ramdisk["bytes"],
        "bytes": kernel["compressed_bytes"] + ramdisk["bytes"],
        "budget_bytes": contents["budget"]["bytes"],
        "unpacked_bytes": kernel["bytes"] + ramdisk["unpacked_bytes"],
        "memory_mib": contents["memory_mib"],
        "modules": sum(file["path"].endswith(".pyc") for file in contents["files"]),
        "libraries": sum(".so" in file["path"] for file in contents["files"]),
        "folder": str(of.manifest.parent),
    }


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    columns = ("name", "kernel", "image", "of budget", "unpacked", "memory", "modules", "libraries")
    screen.table(
        title,
        columns,
        [
            (
                row["name"],
                row["kernel"],
                screen.amount(row["bytes"]),
                f"{100 * row['bytes'] / row['budget_bytes']:.0f}%",
                screen.amount(row["unpacked_bytes"]),
                f"{row['memory_mib']} MiB",
                row["modules"],
                row["libraries"],
            )
            for row in rows
        ],
    )


@app.command()
def build(
    file: Annotated[Path, typer.Argument(help="An assembly (vpn.toml) or a wg-quick file (wg0.conf).")],
    store: Store = None,
    over: Annotated[
        str | None,
        typer.Option("--assembly", help="What a wg-quick file is laid over: a ready-made one (vpn, vpn-2) or a file."),
    ] = None,
    json_: Json = False,
) -> None:
    """Build an image for each role in FILE; what has not changed since is there already.

    The first time, the kernels' source is fetched with apt-get and compiled: some minutes. Files come from Debian's
    packages, the wheels of this environment and Septum itself, each checked against what its package brought.
    """
    from appliance.image.build import BuildError
    from appliance.image.build import build as build_images

    assembly = building.load(file, assembly=over)
    begun = time.monotonic()
    try:
        with _display() as progress:
            built = build_images(assembly, _store(store), progress)
    except BuildError as error:
        screen.fail(str(error))
    rows = [_figures(name, of) for name, of in sorted(built.items())]
    if json_:
        screen.as_json(rows)
        return
    _table(f"{file.stem}: {len(rows)} domains, {time.monotonic() - begun:.1f} s", rows)


def _indexed(store: Path) -> dict[str, Image]:
    """The images that the store's index names, by role: those that a monitor would boot."""
    try:
        index = json.loads((store / INDEX).read_bytes())
        return {name.partition("/")[2]: image((store / entry["kernel"]).parent) for name, entry in index.items()}
    except FileNotFoundError:
        screen.fail(f"there is no image in {store}", "septum image build FILE")
    except ImageError as error:
        screen.fail(str(error))


@app.command("list")
def list_(store: Store = None, json_: Json = False) -> None:
    """List the images that domains would boot, by role."""
    rows = [_figures(name, of) for name, of in sorted(_indexed(_store(store)).items())]
    if json_:
        screen.as_json(rows)
    else:
        _table(str(_store(store)), rows)


@app.command()
def show(
    role: Annotated[str, typer.Argument(help="A role, as `septum image list` names them: rng.")],
    store: Store = None,
    every: Annotated[bool, typer.Option("--all", help="Every file, not only the largest.")] = False,
    json_: Json = False,
) -> None:
    """Show what is in an image, by size, and check its files against their hashes."""
    known = _indexed(_store(store))
    if role not in known:
        screen.fail(f"no image {role!r} in {_store(store)}", f"one of: {', '.join(sorted(known))}")
    chosen = known[role]
    contents = chosen.contents()
    if json_:
        screen.as_json(contents)
        return
    try:
        chosen.check()
    except ImageError as error:
        screen.fail(str(error))
    _table(f"{contents['role']}: both hashes are as in the manifest", [_figures(contents["role"], chosen)])
    _sums(contents["files"])
    files = sorted(contents["files"], key=lambda file: -int(file["bytes"]))
    shown = files if every else files[:20]
    rows = [(screen.amount(file["bytes"]), file["path"], file["from"], file["sha256"][:12]) for file in shown]
    screen.table(f"{len(shown)} of {len(files)} files, largest first", ("size", "file", "from", "sha256"), rows)


def _sums(files: list[dict[str, Any]]) -> None:
    sums: dict[str, list[int]] = {}
    for file in files:
        sums.setdefault(file["from"], []).append(file["bytes"])
    rows = [
        (name, len(sizes), screen.amount(sum(sizes)))
        for name, sizes in sorted(sums.items(), key=lambda each: -sum(each[1]))
    ]
    screen.table("by package", ("package", "files", "unpacked"), rows)
