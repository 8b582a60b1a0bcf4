"""Root hashes of dm-verity: where they are found, and the superblock of the hash data.

systemd-dissect(1) has the places; Documentation/admin-guide/device-mapper/verity.rst of the
kernel the target's parameters.
"""

from __future__ import annotations

import binascii
import os
import struct

from machinectl_py.errors import ConfigError, NotFoundError
from machinectl_py.images.partition_table import read_at
from machinectl_py.record import Record

_HEXADECIMAL = frozenset("0123456789abcdef")
_MAX_TEXT = 4096
_MAX_SIGNATURE = 4 << 20
_BLOCK_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
# signature, version, hash_type, uuid, algorithm, data_block_size, hash_block_size,
# data_blocks, salt_size, salt
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")


class RootHash(Record):
    """The top of a tree of hashes, and which partition it is of."""

    hash: str  # hexadecimal
    designator: str = "root"  # or "usr"
    signature: str = ""  # PKCS#7, base64; "" is none

    @property
    def data_uuid(self) -> str:
        """The UUID of the partition that it authenticates: its first half."""
        return _uuid(self.hash[:32])

    @property
    def hash_uuid(self) -> str:
        """The UUID of the partition with the hashes: its last half."""
        return _uuid(self.hash[-32:])


def _uuid(digits: str) -> str:
    return "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def root_hash_of(text: str, designator: str = "root", signature: str = "") -> RootHash:
    """Return a root hash that was given as text.

    Args:
        text: hexadecimal, at least 128 bits.
        designator: "root" or "usr".
        signature: "base64:…", the path of a file, or "".

    Raises:
        ConfigError: it is none, or the signature is not valid.
        NotFoundError: there is no such file.
    """
    plain = text.strip().lower()
    if len(plain) < 32 or len(plain) % 2 or not _HEXADECIMAL.issuperset(plain):
        raise ConfigError(f"'{plain[:80]}' is no root hash: hexadecimal, at least 128 bits")
    return RootHash(hash=plain, designator=designator, signature=_signature(signature))


def _signature(text: str) -> str:
    if not text:
        return ""
    if text.startswith("base64:"):
        encoded = text.removeprefix("base64:")
        try:
            raw = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError as error:
            raise ConfigError(f"The signature of the root hash is no base64: {error}") from error
    else:
        content = _read(text, _MAX_SIGNATURE)
        if content is None:
            raise NotFoundError(f"There is no {text} with the signature of the root hash")
        raw = content
    if not raw:
        raise ConfigError("The signature of the root hash is empty")
    return binascii.b2a_base64(raw, newline=False).decode()


def find_root_hash(image: str, given: str = "", signature: str = "") -> RootHash | None:
    """Return the root hash that was given, or the one that stands beside an image.

    That is its extended attribute user.verity.roothash or the file NAME.roothash, then those
    with "usrhash", with the signature in NAME.roothash.p7s.

    Args:
        image: path of a file or block device.
        given: the hash, in its own place; "" if none.
        signature: as of `root_hash_of`.

    Raises:
        ConfigError: what is there is no root hash.
        NotFoundError: there is no such signature.
    """
    stem = image.removesuffix(".raw")
    if given:
        beside = f"{stem}.roothash.p7s"
        return root_hash_of(given, "root", signature or (beside if _exists(image, beside) else ""))
    if image.startswith("/dev/"):
        return None
    for word, designator in (("roothash", "root"), ("usrhash", "usr")):
        text = _attribute(image, f"user.verity.{word}") or _read(f"{stem}.{word}", _MAX_TEXT)
        if text is not None:
            beside = f"{stem}.{word}.p7s"
            known = signature or (beside if os.path.exists(beside) else "")
            return root_hash_of(text.decode("ascii", "replace"), designator, known)
    return None


def find_verity_data(image: str, given: str = "") -> str:
    """Return the file with an image's hashes: the one given, or NAME.verity beside it, or "".

    Raises:
        NotFoundError: what was given is not there.
    """
    if given:
        if not os.path.exists(given):
            raise NotFoundError(f"There is no {given} with verity data")
        return os.path.realpath(given)
    beside = f"{image.removesuffix('.raw')}.verity"
    return beside if _exists(image, beside) else ""


def _exists(image: str, beside: str) -> bool:
    return not image.startswith("/dev/") and os.path.exists(beside)


def _attribute(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:  # none, or a file system without
        return None


def _read(path: str, limit: int) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        return None


def embedded_root_hash(fd: int, offset: int, size: int, designator: str) -> RootHash:
    """Return the root hash and its signature from a partition for signatures.

    Args:
        fd: of the image.
        offset: of that partition, in bytes.
        size: idem.
        designator: what is signed, "root" or "usr".

    Raises:
        ConfigError: the partition does not hold them.
    """
    from machinectl_py.codec import decode

    text = read_at(fd, offset, min(size, _MAX_SIGNATURE)).partition(b"\0")[0]
    try:
        data = decode(text.decode())
        found, signature = data["rootHash"], data["signature"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"The partition '{designator}-verity-sig' holds no signature") from error
    if not isinstance(found, str) or not isinstance(signature, str):
        raise ConfigError(f"The partition '{designator}-verity-sig' holds no signature")
    return root_hash_of(found, designator, f"base64:{signature}")


class VerityTree(Record):
    """What the superblock of verity data says about them."""

    hash_type: int
    algorithm: str
    data_block_size: int
    hash_block_size: int
    data_blocks: int
    salt: str  # hexadecimal, or "-"


def read_verity_superblock(fd: int, offset: int, data_size: int) -> VerityTree:
    """Return the superblock of verity data.

    Args:
        fd: of the image, or of the file with the data.
        offset: of the data in it, in bytes.
        data_size: of what is authenticated, in bytes.

    Raises:
        ConfigError: there is none, it is damaged, or speaks of more data than there are.
    """
    block = read_at(fd, offset, _SUPERBLOCK.size)
    if len(block) < _SUPERBLOCK.size or not block.startswith(b"verity\0\0\1\0\0\0"):
        raise ConfigError("The verity data have no superblock")
    fields = _SUPERBLOCK.unpack(block)
    hash_type, algorithm, data_block, hash_block = fields[2], fields[4], fields[5], fields[6]
    blocks, salt_size, salt = fields[7], fields[8], fields[9]
    name = algorithm.partition(b"\0")[0].decode("ascii", "replace")
    sane = (
        hash_type in (0, 1)
        and name.replace("-", "").replace("_", "").isalnum()
        and data_block in _BLOCK_SIZES
        and hash_block in _BLOCK_SIZES
        and 0 < blocks <= data_size // data_block
        and salt_size <= len(salt)
    )
    if not sane:
        raise ConfigError("The superblock of the verity data is damaged")
    return VerityTree(
        hash_type=hash_type,
        algorithm=name,
        data_block_size=data_block,
        hash_block_size=hash_block,
        data_blocks=blocks,
        salt=salt[:salt_size].hex() or "-",
    )


def verity_parameters(
    tree: VerityTree, data: str, hashes: str, root_hash: str, signature_key: str = ""
) -> str:
    """Return the parameters of the target "verity"; the hashes follow their superblock.

    Args:
        tree: the superblock.
        data: the block device that is authenticated, as MAJOR:MINOR or a path.
        hashes: the block device with the hashes, from its superblock on.
        root_hash: hexadecimal.
        signature_key: description of the key that holds the signature; "" checks none.
    """
    words = [
        str(tree.hash_type),
        data,
        hashes,
        str(tree.data_block_size),
        str(tree.hash_block_size),
        str(tree.data_blocks),
        "1",
        tree.algorithm,
        root_hash,
        tree.salt,
    ]
    if signature_key:
        words += ["2", "root_hash_sig_key_desc", signature_key]
    return " ".join(words)
