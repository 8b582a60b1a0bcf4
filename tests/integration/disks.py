"""Disk images of trees: made by the distribution's tools, put together by sfdisk(8)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECTOR = 512
ALIGN = 2048
TOOLS = {"ext4": "mke2fs", "squashfs": "mksquashfs", "erofs": "mkfs.erofs"}
# By sfdisk's short names for those of the Discoverable Partitions Specification.
TYPES = {
    "root": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "usr": "8484680c-9521-48c6-9c11-b0720656f69e",
    "root-verity": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
    "home": "933ac7e1-2eb4-4f13-b844-0e14e2aef915",
    "var": "4d21b016-b534-45c2-a9fb-5c16e091fd2d",
    "srv": "3b8f8425-20e0-4f3b-907f-1a25a76f98e8",
    "esp": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "generic": "0fc63daf-8483-4772-8e79-3d69d8477de4",
}


def tool(*words: str | Path, **keywords) -> subprocess.CompletedProcess[str]:
    """Run one that may stand in sbin."""
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    settings = {"check": True, "capture_output": True, "text": True, "env": environment}
    return subprocess.run(list(map(str, words)), **(settings | keywords))  # noqa: PLW1510


def file_system(kind: str, tree: Path, image: Path, size: str = "") -> Path:
    """Make a file system of a tree in a file."""
    if kind == "ext4":
        tool("mke2fs", "-q", "-t", "ext4", "-F", "-d", tree, image, size or "300M")
    elif kind == "erofs":
        tool("mkfs.erofs", "--quiet", image, tree)
    else:
        speed = ("-comp", "zstd", "-Xcompression-level", "1")
        tool("mksquashfs", tree, image, "-quiet", "-no-progress", "-noappend", *speed)
    return image


def disk(image: Path, *parts: tuple[str, Path], attributes: str = "") -> Path:
    """Make a disk with a GPT of partitions by their type's name, each with a file's content."""
    lines, at = ["label: gpt"], ALIGN
    places = []
    for kind, content in parts:
        sectors = -(-content.stat().st_size // (SECTOR * ALIGN)) * ALIGN
        more = f", attrs={attributes}" if attributes else ""
        lines.append(f"start={at}, size={sectors}, type={TYPES[kind]}{more}")
        places.append((at, content))
        at += sectors
    with image.open("wb") as file:
        file.truncate((at + ALIGN) * SECTOR)
    tool("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, input="\n".join(lines))
    for start, content in places:
        block = f"seek={start // ALIGN}"
        tool("dd", f"if={content}", f"of={image}", "bs=1M", block, "conv=notrunc,sparse")
    return image


def attached(image: Path) -> list[str]:
    """Return the loop devices that are attached to a file."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().strip() == str(image):
                found.append(backing.parts[3])
        except OSError:
            continue
    return sorted(found)
