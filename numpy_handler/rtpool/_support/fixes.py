"""What an `errno` says, and the lines that lift the limits of a user."""

import errno as errno_names
import os


def errno_text(error: int) -> str:
    """The name of an `errno` and what it means."""
    return f"{errno_names.errorcode.get(error, error)}: {os.strerror(error)}" if error else "no errno"


def lift_memlock(size: int | None) -> str:
    """How to be allowed to lock that many bytes in memory; `None`: any number."""
    kib = None if size is None else -(-size // 1024)
    limit, service, container = (
        ("unlimited", "infinity", "-1") if kib is None else (str(kib), f"{kib}K", str(kib * 1024))
    )
    return _lift(f"memlock {limit}", f"service: LimitMEMLOCK={service}; container: --ulimit memlock={container}")


def lift_rtprio(priority: int) -> str:
    """How to be allowed to run under real-time policies of that priority."""
    elsewhere = f"service: LimitRTPRIO={priority}; container: --ulimit rtprio={priority} --cap-add SYS_NICE"
    return _lift(f"rtprio {priority}", elsewhere)


def _lift(limit: str, elsewhere: str) -> str:
    return f"put into /etc/security/limits.conf and log in again: {_user_name()} - {limit} ({elsewhere})"


def _user_name() -> str:
    """The user as limits.conf names it."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"@{os.getgid()}"
