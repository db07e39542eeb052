"""A set of certificates that was found good: the copies of its files, and what is known of them.

It goes to whoever speaks TLS, by the fork or as two descriptors over a channel: what is known may be too much for one
message, so it is in a file of the same kind.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from aioserve.tls.findings import Report
from aioserve.tls.material import Material
from aioserve.tls.memory import MEMORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioserve.tls.places import Stamp


@final
@dataclass(frozen=True, slots=True, eq=False)
class CertificateSet:
    """``report`` has a certificate for each pair of the ``material``, in the same order.

    ``stamp`` is how the files were when they were copied, or empty where nobody looks at them.
    """

    material: Material
    report: Report
    stamp: Stamp = ()

    def close(self) -> None:
        """Give up this process's copies, which are of no use once they are loaded."""
        self.material.close()

    def facts(self) -> int:
        """The descriptor of what is to be known beside the material's; the caller closes it."""
        said = json.dumps({"material": self.material.spell(), "report": self.report.spell().decode()}).encode()
        descriptor = MEMORY.make("aioserve-facts")
        os.pwrite(descriptor, said, 0)
        MEMORY.seal(descriptor)
        return descriptor


@final
@dataclass(frozen=True, slots=True)
class Show:
    """An order of the master: show this set, of which these are the descriptors, from now on."""

    descriptors: tuple[int, ...]


def adopt(descriptors: Sequence[int]) -> CertificateSet:
    """The set of which these are the descriptors of the material and of the facts; they are its own from now on.

    Raises ``ValueError`` if they are not all there: the kernel drops those for which there is no room.
    """
    if len(descriptors) != 2:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ValueError(descriptors)
    material, facts = descriptors
    os.set_inheritable(material, False)
    try:
        said = json.loads(os.pread(facts, os.fstat(facts).st_size, 0))
    finally:
        os.close(facts)
    return CertificateSet(Material.spelt(material, said["material"]), Report.spelt(said["report"].encode()))
