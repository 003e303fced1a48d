"""What can be learned: one file a family, one row here. A task never knows the method that trains it."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.base import Settings
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.tasks.language_modeling import LanguageModeling
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.sentence_similarity import SentenceSimilarity
from tunesmith.tasks.sequence_to_sequence import Summarization, Translation
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.token_classification import TokenClassification

TASKS: dict[str, Any] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "sentence-similarity": SentenceSimilarity,
    "language-modeling": LanguageModeling,
    "summarization": Summarization,
    "translation": Translation,
    "image-classification": ImageClassification,
}


def build(settings: Settings) -> Any:
    """The task for a recipe's `task:`."""
    return TASKS[settings.kind](settings)  # type: ignore[attr-defined]
