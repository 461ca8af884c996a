"""What the batcher does for those who ask for more descriptors, or for them alone."""

import asyncio

import numpy as np
import pytest

from service.encoder.batcher import Batcher
from service.encoder.session import Features


async def test_only_those_who_ask_get_descriptors_of_turned_copies():
    described = []

    def encode(images):
        return Features(np.ones((len(images), 1), np.float32), np.ones((len(images), 2, 1, 1), np.float32))

    def describe(images):
        described.append(images[:, 0, 0, 0].tolist())
        return images[:, :1, :1, 0, None, None] * np.ones((1, 3, 2, 1, 1), np.float32)

    batcher = Batcher(encode, max_batch=4, max_queue=6, describe_turned=describe)
    batcher.start()
    images = [np.full((2, 2, 3), value, np.uint8) for value in (5, 6, 7)]
    asked = (False, True, True)
    answers = await asyncio.gather(*(batcher.encode(i, 9, turned=t) for i, t in zip(images, asked, strict=True)))
    await batcher.close()
    assert answers[0].turned is None
    for answer, value in zip(answers[1:], (6, 7), strict=True):
        np.testing.assert_array_equal(answer.turned, np.full((3, 2, 1, 1), value))
    assert sorted(value for batch in described for value in batch) == [6, 7]


@pytest.mark.parametrize("has_part", [True, False])
async def test_descriptors_alone_need_no_embedding(has_part):
    """With a part of the model that gives them alone, the whole runs only for those who want an embedding."""
    embedded = []

    def encode(images):
        embedded.extend(images[:, 0, 0, 0].tolist())
        return Features(np.ones((len(images), 1), np.float32), describe(images))

    def describe(images):
        return images[:, :1, :1, 0, None].astype(np.float32) * np.ones((1, 2, 1, 1), np.float32)

    batcher = Batcher(encode, max_batch=4, max_queue=6, describe=describe if has_part else None)
    batcher.start()
    images = [np.full((2, 2, 3), value, np.uint8) for value in (5, 6, 7)]
    asked = (False, True, False)
    answers = await asyncio.gather(*(batcher.encode(i, 9, whole=w) for i, w in zip(images, asked, strict=True)))
    await batcher.close()
    assert [len(answer.embedding) for answer in answers] == [0, 1, 0]
    for answer, value in zip(answers, (5, 6, 7), strict=True):
        np.testing.assert_array_equal(answer.local, np.full((2, 1, 1), value))
    assert sorted(embedded) == ([6] if has_part else [5, 6, 7])
