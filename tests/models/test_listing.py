"""The list of models that fit."""

import pytest

from raypatch.models.listing import list_models, word_models


def test_a_part_of_a_name_lists_each_of_its_weights_with_what_is_known_of_them():
    listed = {each.name: each for each in list_models("resnet18")}
    taken = [name for name, each in listed.items() if each.taken and name.startswith("resnet18.")]
    assert taken == ["resnet18.a1_in1k"]
    first = listed["resnet18.fb_ssl_yfcc100m_ft_in1k"]
    assert (first.parameters, first.image_size, first.licence) == (11_689_512, 224, "cc-by-nc-4.0")
    assert (first.normalisation, first.patch_size) == ("ImageNet", False)
    assert listed["resnet18d.ra4_e3600_r224_in1k"].normalisation == "0.5"
    assert listed["torchvision/resnet18"].parameters == 11_689_512
    lines = list(word_models(list(listed.values())))
    assert len(lines) == len(listed) + 2
    assert any("resnet18.a1_in1k" in line and " * " in line and "11,689,512" in line for line in lines)


def test_a_pattern_is_matched_as_a_whole_and_models_that_do_not_fit_are_left_out():
    names = [each.name for each in list_models("deit_tiny*")]
    assert names == ["deit_tiny_patch16_224.fb_in1k"], "the distilled one has two heads"
    assert list_models("deit_tiny*")[0].patch_size
    with pytest.raises(ValueError, match="no model is called 'resnet500'"):
        list_models("resnet500")


def test_the_whole_list_is_quick_because_nothing_is_constructed():
    listed = list_models()
    assert len(listed) > 1500
    assert all(each.parameters is None for each in listed if not each.name.startswith("torchvision/"))
    assert "parameters are counted for up to" in list(word_models(listed))[-1]
