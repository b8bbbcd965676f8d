-- They are of one group from now on. Reads: clip, joined.
UPDATE clip SET rung = $rung, shown = j.shown FROM joined j WHERE j.clip_ref = clip.clip_ref
