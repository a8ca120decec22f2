from teachers.dp_iqa.prompts import DISTORTIONS, PROMPTS, QUALITIES, SCENES


def test_there_are_1485_different_prompts():
    assert (len(QUALITIES), len(SCENES), len(DISTORTIONS)) == (5, 9, 33)
    assert len(PROMPTS) == len(set(PROMPTS)) == 1485


def test_quality_is_the_outermost_loop_and_distortion_the_innermost():
    assert PROMPTS[0] == "a photo of a animal with jpeg2000 compression artifacts, which is of bad quality"
    assert PROMPTS[1] == "a photo of a animal with jpeg compression artifacts, which is of bad quality"
    assert PROMPTS[33] == "a photo of a cityscape with jpeg2000 compression artifacts, which is of bad quality"
    assert PROMPTS[33 * 9] == "a photo of a animal with jpeg2000 compression artifacts, which is of poor quality"
    assert PROMPTS[-1] == "a photo of a others with other realistic artifacts, which is of perfect quality"
