"""What a diagnosis says."""

from typing import Literal, NamedTuple

Confidence = Literal["certain", "likely", "possible"]


class Diagnosis(NamedTuple):
    """One thing that is wrong, in words."""

    what: str
    """What is wrong: a clause that begins small and ends without a stop."""
    confidence: Confidence
    """Certain: nothing else that was tried comes near, in most cameras. Likely: what
    was measured is explained, but other causes or chance are not ruled out. Possible:
    it would explain what was measured, and so would nothing being wrong."""
    evidence: str
    """What was measured: likewise a clause."""
    remedy: str
    """The option or the edit that mends it: likewise a clause."""

    def __str__(self) -> str:
        """The sentence for people."""
        return f"{self.what} ({self.confidence}: {self.evidence}): {self.remedy}."
