"""Questions to the kernel over netlink, by sockets that are kept.

Messages are taken apart here, and only as far as somebody asks: what is looked at once a second has to cost little.

References
----------
netlink(7); rtnetlink(7); linux/netlink.h; linux/rtnetlink.h; linux/genetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

# linux/netlink.h.
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_NLM_F_REQUEST: Final = 0x01
_NLM_F_ACK: Final = 0x04
_NLM_F_DUMP: Final = 0x300
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF

_NETLINK_ROUTE: Final = 0
_NETLINK_GENERIC: Final = 16

# linux/genetlink.h.
_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID: Final = 1
_CTRL_ATTR_FAMILY_NAME: Final = 2
_CTRL_ATTR_MCAST_GROUPS: Final = 7
_CTRL_ATTR_MCAST_GRP_NAME: Final = 1
_CTRL_ATTR_MCAST_GRP_ID: Final = 2
_GENERIC_HEADER: Final = struct.Struct("=BBxx")  # struct genlmsghdr

# linux/rtnetlink.h.
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_GETNSID: Final = 90
RTNLGRP_LINK: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_RECEIVE_BYTES: Final = 1 << 16
_DUMP_ATTEMPTS: Final = 5


class NetlinkRefusal(OSError):
    """The kernel refused a request.

    Attributes
    ----------
    explanation : str
        What the kernel said beside the error number (extack); empty where it said nothing.
    """

    def __init__(self, number: int, explanation: str) -> None:
        super().__init__(number, os.strerror(number))
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class Message:
    """One message, without its netlink header.

    Attributes
    ----------
    kind : int
        RTM_*.
    body : bytes
        The family's header and attributes.
    """

    kind: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute as it is sent, padded to four bytes."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of each attribute; ends where what follows is none."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _NLA_TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4


def text(value: bytes) -> str:
    """Return a string attribute without the NUL at its end."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def number(value: bytes) -> int:
    """Return an unsigned number attribute, whatever its width."""
    return int.from_bytes(value, sys.byteorder)


class NetlinkSocket:
    """A socket of one network namespace, in which it stays whatever its thread does.

    Parameters
    ----------
    protocol : int
        NETLINK_*.
    groups : int
        Multicast groups to hear from, as a mask; such a socket is for `notices` only.

    Attributes
    ----------
    overrun : bool
        Notices were lost; whoever minds takes note of it and sets it back.
    """

    def __init__(self, protocol: int, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._interrupted = self.overrun = False
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            # From Linux 4.20 on, filters of dumps count; before, what is asked for is among what comes.
            self._set_if_known(_NETLINK_GET_STRICT_CHK)
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def _set_if_known(self, option: int) -> None:
        try:
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, kind: int, body: bytes, *, acknowledge: bool = False) -> list[Message]:
        """Ask for one thing, or change one.

        Parameters
        ----------
        kind : int
            RTM_GET* and the like.
        body : bytes
            The family's header and attributes.
        acknowledge : bool
            Nothing but an acknowledgement is the answer, as to changes.

        Raises
        ------
        NetlinkRefusal
            The kernel says no; ENODEV for an interface that is none.
        """
        return self._converse(kind, body, _NLM_F_ACK if acknowledge else 0)

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """Ask for all there are; asked again where they changed meanwhile.

        Raises
        ------
        NetlinkRefusal
            The kernel says no.
        """
        answers: list[Message] = []
        for _ in range(_DUMP_ATTEMPTS):
            self._interrupted = False
            answers = self._converse(kind, body, _NLM_F_DUMP)
            if not self._interrupted:
                break
        return answers

    def notices(self) -> list[Message]:
        """Return what came from the groups since the last call; what had no room there is lost, and sets `overrun`."""
        messages: list[Message] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self.overrun = True
                    continue
                raise
            messages += [Message(kind, body) for kind, _, _, body in _taken_apart(data)]

    def close(self) -> None:
        """May be called again."""
        self._socket.close()

    def _converse(self, kind: int, body: bytes, flags: int) -> list[Message]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[Message] = []
        while True:
            for answer, said, sequence, content in _taken_apart(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                self._interrupted |= bool(said & _NLM_F_DUMP_INTR)
                if answer == _NLMSG_DONE:
                    return answers
                if answer == _NLMSG_ERROR:
                    _raise_refusal(content, said)
                    return answers
                answers.append(Message(answer, content))
                if not flags:
                    return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Rtnetlink(NetlinkSocket):
    """About links, addresses and routes.

    Parameters
    ----------
    groups : int
        As `1 << RTNLGRP_LINK - 1`.
    """

    def __init__(self, groups: int = 0) -> None:
        super().__init__(_NETLINK_ROUTE, groups)


class GenericNetlink(NetlinkSocket):
    """About whatever a family of generic netlink knows.

    Parameters
    ----------
    family : str
        As `netdev`.

    Raises
    ------
    NetlinkRefusal
        The kernel has no such family.
    """

    def __init__(self, family: str) -> None:
        super().__init__(_NETLINK_GENERIC)
        try:
            named = attribute(_CTRL_ATTR_FAMILY_NAME, family.encode("ascii") + b"\0")
            (answer,) = self.request(_GENL_ID_CTRL, _GENERIC_HEADER.pack(_CTRL_CMD_GETFAMILY, 1) + named)
            about = dict(attributes(answer.body[_GENERIC_HEADER.size :]))
            self._family = number(about[_CTRL_ATTR_FAMILY_ID])
            groups = [dict(attributes(group)) for _, group in attributes(about.get(_CTRL_ATTR_MCAST_GROUPS, b""))]
            self._groups = {
                text(group[_CTRL_ATTR_MCAST_GRP_NAME]): number(group[_CTRL_ATTR_MCAST_GRP_ID]) for group in groups
            }
        except BaseException:
            self.close()
            raise

    def hear(self, group: str) -> None:
        """Hear from a multicast group from now on; such a socket is for `notices` only.

        Raises
        ------
        NetlinkRefusal
            There is no such group.
        """
        if group not in self._groups:
            raise NetlinkRefusal(errno.ENOENT, "")
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, self._groups[group])

    def ask(self, command: int, question: bytes) -> dict[int, bytes]:
        """Return the attributes of the answer to one question, which is made of attributes, too."""
        (answer,) = self.request(self._family, _GENERIC_HEADER.pack(command, 1) + question)
        return dict(attributes(answer.body[_GENERIC_HEADER.size :]))


def _taken_apart(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence number and body of each message of a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += length + -length % 4


def _raise_refusal(content: bytes, flags: int) -> None:
    """Raise what an NLMSG_ERROR says; an error number of 0 is an acknowledgement."""
    (negative,) = struct.unpack_from("=i", content)
    if not negative:
        return
    explanation = ""
    if flags & _NLM_F_ACK_TLVS:
        # The request's header follows the error number, and its body unless that is capped.
        (length,) = struct.unpack_from("=I", content, 4)
        begin = 4 + (_HEADER.size if flags & _NLM_F_CAPPED else length + -length % 4)
        explanation = next(
            (text(value) for name, value in attributes(content[begin:]) if name == _NLMSGERR_ATTR_MSG), ""
        )
    raise NetlinkRefusal(-negative, explanation)
