from __future__ import annotations

import random

import pytest

from aioserve.offloading.schedule import Schedule


def with_idle(*lanes, most=2, room=2):
    schedule = Schedule(most, room)
    for now, lane in enumerate(lanes):
        schedule.opening(lane)
        schedule.opened(lane, float(now))
    return schedule


def test_calls_run_in_the_order_in_which_they_came():
    schedule = with_idle("a", most=1)
    schedule.add(1)
    schedule.add(2)
    first = schedule.match()
    schedule.freed("a", 1.0)
    assert [first, schedule.match()] == [("a", 1), ("a", 2)]


def test_nothing_matches_without_a_lane_or_without_a_call():
    schedule = with_idle()
    assert schedule.match() is None
    schedule.add(1)
    assert schedule.match() is None


def test_as_many_calls_as_lanes_may_be_about_to_start_beyond_the_queue():
    schedule = Schedule(2, 1)
    assert [schedule.add(number) for number in range(4)] == [True, True, True, False]


def test_busy_lanes_leave_only_the_queue():
    schedule = with_idle("a", most=1, room=1)
    schedule.add(1)
    schedule.match()
    assert [schedule.add(2), schedule.add(3)] == [True, False]


def test_a_queue_without_room_still_serves_a_free_lane():
    schedule = with_idle("a", most=1, room=0)
    assert schedule.add(1)
    schedule.match()
    assert not schedule.add(2)


def test_lanes_are_opened_for_calls_that_wait_and_no_others():
    schedule = Schedule(2, 10)
    assert schedule.lacking() == 0
    schedule.add(1)
    assert schedule.lacking() == 1
    schedule.opening("a")
    assert schedule.lacking() == 0
    schedule.add(2)
    schedule.add(3)
    assert schedule.lacking() == 1
    schedule.opening("b")
    assert schedule.lacking() == 0


def test_the_lane_that_was_used_last_is_used_next():
    schedule = with_idle("a", "b")
    schedule.add(1)
    assert schedule.match() == ("b", 1)


def test_lanes_that_have_been_idle_for_long_are_tired():
    schedule = with_idle("a", "b")
    assert schedule.idle_since() == 0.0
    assert schedule.tired(0.0) == ["a"]
    assert schedule.tired(1.0) == ["a", "b"]


def test_a_call_that_was_put_back_is_the_next_one():
    schedule = with_idle("a", most=1)
    schedule.add(1)
    schedule.add(2)
    _, call = schedule.match()
    schedule.gone("a")
    schedule.put_back(call)
    schedule.opening("b")
    schedule.opened("b", 1.0)
    assert schedule.match() == ("b", 1)


def test_a_call_leaves_the_queue_once():
    schedule = Schedule(1, 1)
    schedule.add(1)
    assert schedule.remove(1)
    assert not schedule.remove(1)


def test_emptying_the_queue_gives_its_calls_in_order():
    schedule = Schedule(1, 5)
    for number in range(3):
        schedule.add(number)
    assert schedule.take_all() == [0, 1, 2]
    assert schedule.waiting == 0


@pytest.mark.parametrize("state", ["opening", "idle", "busy"])
def test_a_lane_is_gone_once_whatever_it_was_doing(state):
    schedule = Schedule(1, 1)
    schedule.opening("a")
    if state != "opening":
        schedule.opened("a", 0.0)
    if state == "busy":
        schedule.add(1)
        schedule.match()
    assert schedule.gone("a")
    assert not schedule.gone("a")
    assert schedule.lanes == 0


def test_any_history_keeps_the_books_right():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(50):
        most, room = chance.randint(1, 4), chance.randint(0, 5)
        schedule = Schedule(most, room)
        waiting, opening, idle, busy, made = [], [], [], {}, 0
        for step in range(200):
            act = chance.choice(["add", "remove", "open", "opened", "match", "freed", "gone"])
            if act == "add":
                fits = len(waiting) < room + most - len(busy)
                assert schedule.add(step) is fits
                waiting += [step] * fits
            elif act == "remove" and waiting:
                call = chance.choice(waiting)
                assert schedule.remove(call)
                waiting.remove(call)
            elif act == "open" and schedule.lacking():
                made += 1
                schedule.opening(made)
                opening.append(made)
            elif act == "opened" and opening:
                schedule.opened(opening[0], float(step))
                idle.append(opening.pop(0))
            elif act == "match":
                pair = schedule.match()
                assert (pair is None) == (not waiting or not idle)
                if pair is not None:
                    assert pair == (idle[-1], waiting[0])
                    busy[idle.pop()] = waiting.pop(0)
            elif act == "freed" and busy:
                lane = chance.choice(list(busy))
                del busy[lane]
                schedule.freed(lane, float(step))
                idle.append(lane)
            elif act == "gone" and (lanes := [*opening, *idle, *busy]):
                lane = chance.choice(lanes)
                assert schedule.gone(lane)
                busy.pop(lane, None)
                opening, idle = [o for o in opening if o != lane], [i for i in idle if i != lane]
            assert (schedule.waiting, schedule.running) == (len(waiting), len(busy))
            assert schedule.lanes == len(opening) + len(idle) + len(busy) <= most
