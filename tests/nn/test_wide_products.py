"""Products by the faster library are as exact as the others, or are not used."""

import pytest
import torch

from covermap.nn import products
from covermap.nn.build import make_backbone
from covermap.testing.backbone import suitable_spec


@pytest.fixture
def as_delivered(monkeypatch):
    monkeypatch.setenv("COVERMAP_WIDE_PRODUCTS", "1")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
    products.use_wide_products.cache_clear()


def test_products_are_float32_whatever_was_chosen(as_delivered):
    products.use_wide_products.cache_clear()
    make_backbone("vit_tiny", suitable_spec("vit_tiny"))
    assert products.is_exact()


def test_a_process_that_is_not_ours_is_left_alone(as_delivered, monkeypatch):
    monkeypatch.delenv("COVERMAP_WIDE_PRODUCTS")
    assert not products.use_wide_products.__wrapped__()
    assert torch.get_float32_matmul_precision() == "highest"


def test_where_it_is_chosen_it_is_told(as_delivered):
    chosen = products.use_wide_products.__wrapped__()
    assert torch.get_float32_matmul_precision() == ("medium" if chosen else "highest")


def test_products_that_are_not_exact_are_not_used(as_delivered, monkeypatch):
    monkeypatch.setattr(products, "is_exact", lambda: False)
    assert not products.use_wide_products.__wrapped__()
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_a_user_has_set_stays(as_delivered):
    torch.set_float32_matmul_precision("high")
    assert not products.use_wide_products.__wrapped__()
    assert torch.get_float32_matmul_precision() == "high"


def test_bfloat16_would_be_told(monkeypatch):
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda a, b: linear(a.bfloat16(), b.bfloat16()).float())
    assert not products.is_exact()
