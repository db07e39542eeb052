"""Classic BPF: programs of a few instructions that a socket takes without privileges (socket(7), <linux/filter.h>)."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Code, jump if true, jump if false, operand.
Instruction: TypeAlias = tuple[int, int, int, int]

_INSTRUCTION: Final = struct.Struct("=HBBI")

LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
LOAD_BYTE: Final = 0x30  # BPF_LD | BPF_B | BPF_ABS
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
MODULO: Final = 0x94  # BPF_ALU | BPF_MOD | BPF_K
JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM


def pack(code: Iterable[Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def attach(sock: socket.socket, option: int, code: bytes) -> None:
    """Give a socket its program. Raises ``OSError`` where the system knows no such option or forbids it."""
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: an unsigned short and, aligned, a pointer.
    fprog = struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, option, fprog)
