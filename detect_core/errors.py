"""The one error tree of detect_core.

Two axes: whose fault it is (the class) and what a caller should do about it (decided in `workers/retry.py`,
never here). Every class carries the public `code` that ends up in a verdict body and whether a second try can help.
A message says what was tried, what came, what was expected and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class DetectCoreError(Exception):
    """Base of everything that detect_core raises on purpose."""

    code: ClassVar[str] = "INTERNAL"
    """Public error code, stable across versions."""

    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without anybody changing the file."""


class OptionError(DetectCoreError, ValueError):
    """Raised when a caller passes an option that cannot work."""

    code = "INVALID_OPTION"


class ScreeningCancelled(DetectCoreError):  # noqa: N818 - being cancelled is no error of anybody's
    """Raised when the caller's cancel event is set while a screening runs (drain, lost lease)."""

    code = "CANCELLED"
    retryable = True


# --- the file cannot be judged -------------------------------------------------------------------------------------


class MediaError(DetectCoreError):
    """Base of errors that are the file's fault: the same bytes fail again."""

    code = "DECODE_ERROR"


class EmptyInputError(MediaError):
    """Raised when the file holds no bytes."""

    code = "EMPTY_INPUT"


class NotMediaError(MediaError):
    """Raised when the bytes are no media format that is known."""

    code = "NOT_MEDIA"


class FormatNotAllowedError(MediaError):
    """Raised for playlists, scripts, subtitles, still images and bare audio."""

    code = "FORMAT_NOT_ALLOWED"


class CorruptContainerError(MediaError):
    """Raised when the container's own header cannot be parsed."""

    code = "CORRUPT_CONTAINER"


class NoVideoStreamError(MediaError):
    """Raised when a container holds audio, data or cover art only."""

    code = "NO_VIDEO_STREAM"


class ImageOnlyError(MediaError):
    """Raised when an image or animation format holds a single still frame."""

    code = "IMAGE_ONLY"


class UnsupportedCodecError(MediaError):
    """Raised when the video's codec has no decoder here or is not on the list."""

    code = "UNSUPPORTED_CODEC"


class EncryptedMediaError(MediaError):
    """Raised when the media carry signs of encryption, even if frames come out."""

    code = "ENCRYPTED_MEDIA"


class TooManyStreamsError(MediaError):
    """Raised when a container declares more streams than the limit."""

    code = "TOO_MANY_STREAMS"


class ResolutionTooLargeError(MediaError):
    """Raised when a frame would hold more pixels than the limit."""

    code = "RESOLUTION_TOO_LARGE"


class ResolutionTooSmallError(MediaError):
    """Raised when the short side of the video is below the limit."""

    code = "RESOLUTION_TOO_SMALL"


class DurationTooLongError(MediaError):
    """Raised when the real time span of the packets is above the policy's limit."""

    code = "DURATION_TOO_LONG"


class FileTooLargeError(MediaError):
    """Raised when the file holds more bytes than the policy allows."""

    code = "FILE_TOO_LARGE"


class UndecodableError(MediaError):
    """Raised when not one usable frame came out of the decoder."""

    code = "DECODE_ERROR"


# --- the decode child ran into a limit -----------------------------------------------------------------------------


class DecodeLimitError(DetectCoreError):
    """Base of ends of a decode child that are not a clean answer about the file."""

    code = "DECODE_RESOURCE_LIMIT"


class DecodeTimeoutError(DecodeLimitError):
    """Raised when decoding was still running at its wall-clock deadline; the child was killed."""

    code = "DECODE_TIMEOUT"
    retryable = True


class DecodeResourceError(DecodeLimitError):
    """Raised when the decode child hit its memory or CPU limit, or was killed from outside."""

    code = "DECODE_RESOURCE_LIMIT"
    retryable = True


class DecoderCrashError(DecodeLimitError):
    """Raised when the decode child died by SIGSEGV, SIGABRT or SIGBUS: a poison signal."""

    code = "DECODER_CRASH"


class DecodeProtocolError(DecodeLimitError):
    """Raised when the decode child answered something the protocol does not allow."""

    code = "DECODER_CRASH"


class DecodeDoubtError(DecodeLimitError):
    """Raised when decoding in several threads met anything odd; one thread in a fresh child has the last word."""


class HardwareDecodeError(DetectCoreError):
    """Raised when a graphics card cannot be had for decoding or decodes otherwise than software; software takes over."""

    code = "HARDWARE_DECODE"


# --- detectors and their bundles -----------------------------------------------------------------------------------


class BundleError(DetectCoreError):
    """Base of errors about detector bundles: nothing is scored with such a bundle."""

    code = "MODEL_UNAVAILABLE"
    retryable = True


class BundleNotFoundError(BundleError, FileNotFoundError):
    """Raised when a bundle folder or one of its files is missing."""


class BundleIntegrityError(BundleError):
    """Raised when a bundle's bytes differ from what its card says (hash, size, names, shapes)."""


class BundleMismatchError(BundleError):
    """Raised when a bundle, a calibration or a net were not made for each other."""


class DetectorError(DetectCoreError):
    """Raised when a detector raised or gave a score that is not finite."""

    code = "DETECTOR_ERROR"
    retryable = True
