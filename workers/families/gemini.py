"""Gemini: a header that keeps a conversation on one session, and a sign-in that may expire."""

from __future__ import annotations

from shared.domain import Claimed
from shared.errors import UpstreamError
from shared.kinds import ErrorKind
from workers.families.generic import Behaviour


class GeminiBehaviour(Behaviour):
    """The affinity header, and the look for an expired sign-in."""

    def headers(self, task: Claimed) -> dict[str, str]:
        """`X-Conversation-ID` lets a session-keeping endpoint find the conversation again."""
        return {"X-Conversation-ID": task.conversation_id}

    @property
    def keepalive_s(self) -> float:
        """An endpoint without a key lives on somebody's sign-in, which lapses when it is not used."""
        return 0.0 if self.family.api_key else self.settings.gemini_keepalive_s

    def classify(self, error: UpstreamError) -> UpstreamError:
        """Without a key, a refusal to serve us or a way to Google's sign-in page means that the sign-in has expired."""
        at_sign_in = error.kind == ErrorKind.REDIRECT or "sign in" in error.message.lower()
        if self.family.api_key or not (error.http_status in (401, 403) or at_sign_in):
            return error
        said = f"the endpoint's Google sign-in has expired ({error.message})"
        return UpstreamError(said, kind=ErrorKind.SIGNED_OUT, retryable=True, http_status=error.http_status)


behaviour = GeminiBehaviour
