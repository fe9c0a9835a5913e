"""Gemini: refusals that come as HTTP 200, and a header that keeps a conversation on one session."""

from __future__ import annotations

from shared.domain import Claimed
from shared.errors import UpstreamError
from workers.answer import Answer
from workers.families.generic import Behaviour
from workers.keepalive import SIGNED_OUT

# Web bridges to Gemini answer with these sentences, Chinese or English, when they can't get at the model or the
# model declines as a whole. An answer that merely contains one in a longer text is an answer.
REFUSALS = (
    "我只是一个语言模型",
    "我无法提供这方面的帮助",
    "我没法提供这方面的帮助",
    "抱歉，我无法回答",
    "很抱歉，我无法协助",
    "作为一个语言模型，我无法",
    "i'm just a language model",
    "i'm a text-based ai and can't assist with that",
    "i can't assist you with that, as i'm only a language model",
    "i'm not able to help with that, as i'm only a language model",
    "i am unable to help you with that",
    "i can't help with that",
)
# A refusal is a sentence or two; whatever is longer has something to say.
REFUSAL_CHARS = 300


class GeminiBehaviour(Behaviour):
    """The affinity header, and the look for soft refusals."""

    def headers(self, task: Claimed) -> dict[str, str]:
        """`X-Conversation-ID` lets a session-keeping endpoint find the conversation again."""
        return {"X-Conversation-ID": task.conversation_id}

    @property
    def keepalive_s(self) -> float:
        """An endpoint without a key lives on somebody's sign-in, which lapses when it is not used."""
        return 0.0 if self.family.api_key else self.settings.gemini_keepalive_s

    def classify(self, error: UpstreamError) -> UpstreamError:
        """Without a key, a refusal to serve us or a way to Google's sign-in page means that the sign-in has expired."""
        at_sign_in = error.kind == "redirect" or "sign in" in error.message.lower()
        if self.family.api_key or not (error.http_status in (401, 403) or at_sign_in):
            return error
        said = f"the endpoint's Google sign-in has expired ({error.message})"
        return UpstreamError(said, kind=SIGNED_OUT, retryable=True, http_status=error.http_status)

    def finish(self, answer: Answer) -> Answer:
        """Turn a soft refusal into an error."""
        if is_refusal(answer.text, (*REFUSALS, *self.settings.refusal_phrases)):
            said = " ".join(answer.text.split())[:200]
            raise UpstreamError(f"the model refused: {said}", kind="refused", retryable=False, http_status=200)
        return answer


def is_refusal(text: str, phrases: tuple[str, ...]) -> bool:
    """Tell whether a short answer is nothing but a refusal: it starts with one of the phrases."""
    said = " ".join(text.split()).lower().replace("’", "'").lstrip("*_> ")
    for opening in ("sorry, ", "i'm sorry, but ", "i'm sorry, ", "抱歉，", "很抱歉，"):
        if said.startswith(opening) and any(said[len(opening) :].startswith(p.lower()) for p in phrases):
            return len(said) <= REFUSAL_CHARS
    return len(said) <= REFUSAL_CHARS and any(said.startswith(phrase.lower()) for phrase in phrases)


behaviour = GeminiBehaviour
