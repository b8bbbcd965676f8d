-- The warehouse, contracts §5: every table and column says what it is. No raw identifier is in it.
-- In one transaction: each statement would wait for the disk on its own.
BEGIN TRANSACTION;
CREATE TABLE deliveries (
    batch_id VARCHAR PRIMARY KEY,
    vendor VARCHAR,
    night DATE,
    state VARCHAR,
    clip_count INTEGER,
    audio_ms BIGINT,
    size_bytes BIGINT,
    manifested_at TIMESTAMPTZ,
    delivered_at TIMESTAMPTZ,
    due_at TIMESTAMPTZ,
    answered_clips BIGINT,
    owed_clips BIGINT
);
COMMENT ON TABLE deliveries IS 'One row a batch: the unit of delivery to one vendor';
COMMENT ON COLUMN deliveries.batch_id IS 'Name of the batch: vendor, night and sequence';
COMMENT ON COLUMN deliveries.vendor IS 'Vendor that the batch is sealed for';
COMMENT ON COLUMN deliveries.night IS 'UTC date of the run that made the batch';
COMMENT ON COLUMN deliveries.state IS 'Where the batch is in its life: docs/states.md';
COMMENT ON COLUMN deliveries.clip_count IS 'Clips in the batch';
COMMENT ON COLUMN deliveries.audio_ms IS 'Length of all its clips as they were sent, in milliseconds';
COMMENT ON COLUMN deliveries.size_bytes IS 'Size of the sealed batch, in bytes; null before it is sealed';
COMMENT ON COLUMN deliveries.manifested_at IS 'When the batch was cut';
COMMENT ON COLUMN deliveries.delivered_at IS 'When its ready file lay on the vendor''s server; null before';
COMMENT ON COLUMN deliveries.due_at IS 'When the vendor owes the transcripts; null before it is delivered';
COMMENT ON COLUMN deliveries.answered_clips IS 'Clips for which a row was accepted, of any status; null before it is delivered';
COMMENT ON COLUMN deliveries.owed_clips IS 'Clips without an accepted row that were not recalled; null before it is delivered';

CREATE TABLE clips (
    clip_key VARCHAR,
    batch_id VARCHAR,
    night DATE,
    vendor VARCHAR,
    stratum VARCHAR,
    product VARCHAR,
    locale VARCHAR,
    recorded_week VARCHAR,
    duration_ms INTEGER,
    inclusion_probability DOUBLE,
    is_overlap BOOLEAN,
    is_withheld BOOLEAN,
    speaker_key VARCHAR,
    speaker_keys VARCHAR[]
);
COMMENT ON TABLE clips IS 'One row a delivered clip and batch';
COMMENT ON COLUMN clips.clip_key IS 'Pseudonym of the clip inside the warehouse; not the ref that a vendor sees';
COMMENT ON COLUMN clips.batch_id IS 'Batch in which it was delivered';
COMMENT ON COLUMN clips.night IS 'UTC date of the run that chose it';
COMMENT ON COLUMN clips.vendor IS 'Vendor that heard it';
COMMENT ON COLUMN clips.stratum IS 'Cell of the sampling plan, such as product × locale';
COMMENT ON COLUMN clips.product IS 'Product that recorded it';
COMMENT ON COLUMN clips.locale IS 'BCP 47 tag of the speech';
COMMENT ON COLUMN clips.recorded_week IS 'ISO 8601 week of the recording';
COMMENT ON COLUMN clips.duration_ms IS 'Length in milliseconds';
COMMENT ON COLUMN clips.inclusion_probability IS 'Chance that the clip had of being chosen that night; its inverse is its weight';
COMMENT ON COLUMN clips.is_overlap IS 'Whether another vendor has the same clip of the same night';
COMMENT ON COLUMN clips.is_withheld IS 'Whether the vendor was not shown the hypotheses, to see how far they steer';
COMMENT ON COLUMN clips.speaker_key IS 'Pseudonym of the person (of a conversation: of one of them); clips of one person go together';
COMMENT ON COLUMN clips.speaker_keys IS 'Pseudonyms of all persons that are heard in it';

CREATE TABLE transcripts (
    clip_key VARCHAR,
    batch_id VARCHAR,
    vendor VARCHAR,
    status VARCHAR,
    text VARCHAR,
    chosen_rank INTEGER,
    annotator_key VARCHAR,
    submitted_at TIMESTAMPTZ,
    revision INTEGER,
    note VARCHAR,
    words INTEGER,
    masks INTEGER,
    stratum VARCHAR,
    locale VARCHAR,
    is_overlap BOOLEAN
);
COMMENT ON TABLE transcripts IS 'The current revision of what a vendor returned for a clip; clips that were marked sensitive or distress are not in it';
COMMENT ON COLUMN transcripts.clip_key IS 'Pseudonym of the clip, as in clips';
COMMENT ON COLUMN transcripts.batch_id IS 'Batch in which the clip was delivered';
COMMENT ON COLUMN transcripts.vendor IS 'Vendor that transcribed it';
COMMENT ON COLUMN transcripts.status IS 'transcribed, unintelligible, no_speech or wrong_language';
COMMENT ON COLUMN transcripts.text IS 'What was said, with every word masked that is not known to be harmless; null unless the vendor wrote one';
COMMENT ON COLUMN transcripts.chosen_rank IS 'Hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN transcripts.annotator_key IS 'Pseudonym of the vendor''s pseudonym of the transcriber';
COMMENT ON COLUMN transcripts.submitted_at IS 'When the transcriber submitted it';
COMMENT ON COLUMN transcripts.revision IS 'Revision; higher replaced lower';
COMMENT ON COLUMN transcripts.note IS 'The vendor''s note, masked like the text';
COMMENT ON COLUMN transcripts.words IS 'Words of the text as it stands here; null where there is none';
COMMENT ON COLUMN transcripts.masks IS 'Of these, masks: each stands for a word or a run of words';
COMMENT ON COLUMN transcripts.stratum IS 'As in clips, so that no join is needed';
COMMENT ON COLUMN transcripts.locale IS 'As in clips';
COMMENT ON COLUMN transcripts.is_overlap IS 'As in clips';

CREATE TABLE scores (
    clip_key VARCHAR,
    batch_id VARCHAR,
    vendor VARCHAR,
    rules VARCHAR,
    words INTEGER,
    substitutions INTEGER,
    deletions INTEGER,
    insertions INTEGER,
    hits INTEGER,
    characters INTEGER,
    character_substitutions INTEGER,
    character_deletions INTEGER,
    character_insertions INTEGER,
    character_hits INTEGER,
    chosen_substitutions INTEGER,
    chosen_deletions INTEGER,
    chosen_insertions INTEGER,
    chosen_hits INTEGER,
    chosen_character_substitutions INTEGER,
    chosen_character_deletions INTEGER,
    chosen_character_insertions INTEGER,
    chosen_character_hits INTEGER,
    stratum VARCHAR,
    product VARCHAR,
    locale VARCHAR,
    recorded_week VARCHAR,
    duration_ms INTEGER,
    inclusion_probability DOUBLE,
    speaker_key VARCHAR
);
COMMENT ON TABLE scores IS 'Errors of the recogniser''s first hypothesis against a transcript, counted on the unmasked texts';
COMMENT ON COLUMN scores.clip_key IS 'Pseudonym of the clip, as in clips';
COMMENT ON COLUMN scores.batch_id IS 'Batch in which the clip was delivered';
COMMENT ON COLUMN scores.vendor IS 'Vendor that transcribed it';
COMMENT ON COLUMN scores.rules IS 'Rules by which the texts were normalised: of which language, and their version';
COMMENT ON COLUMN scores.words IS 'Words of the transcript';
COMMENT ON COLUMN scores.substitutions IS 'Words that were recognised as another word';
COMMENT ON COLUMN scores.deletions IS 'Words that were not recognised';
COMMENT ON COLUMN scores.insertions IS 'Words that were recognised and not said';
COMMENT ON COLUMN scores.hits IS 'Words that were recognised';
COMMENT ON COLUMN scores.characters IS 'Characters of the transcript, without spaces';
COMMENT ON COLUMN scores.character_substitutions IS 'Characters that were recognised as another';
COMMENT ON COLUMN scores.character_deletions IS 'Characters that were not recognised';
COMMENT ON COLUMN scores.character_insertions IS 'Characters that were recognised and not said';
COMMENT ON COLUMN scores.character_hits IS 'Characters that were recognised';
COMMENT ON COLUMN scores.chosen_substitutions IS 'Words that are another in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_deletions IS 'Words that are not in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_insertions IS 'Words that are only in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_hits IS 'Words that are in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_character_substitutions IS 'Characters that are another in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_character_deletions IS 'Characters that are not in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_character_insertions IS 'Characters that are only in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.chosen_character_hits IS 'Characters that are in the hypothesis that the transcriber started from; null when none';
COMMENT ON COLUMN scores.stratum IS 'As in clips, so that no join is needed';
COMMENT ON COLUMN scores.product IS 'As in clips';
COMMENT ON COLUMN scores.locale IS 'As in clips';
COMMENT ON COLUMN scores.recorded_week IS 'As in clips';
COMMENT ON COLUMN scores.duration_ms IS 'As in clips';
COMMENT ON COLUMN scores.inclusion_probability IS 'As in clips';
COMMENT ON COLUMN scores.speaker_key IS 'As in clips';

CREATE TABLE wer_by_stratum (
    stratum VARCHAR PRIMARY KEY,
    estimate DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    clips BIGINT,
    speakers BIGINT,
    effective_clips DOUBLE,
    hours DOUBLE,
    hours_needed DOUBLE
);
COMMENT ON TABLE wer_by_stratum IS 'Word error rate of the recogniser in each stratum: errors over words, weighted by the inverse inclusion probability (Hájek)';
COMMENT ON COLUMN wer_by_stratum.stratum IS 'Cell of the sampling plan, such as product × locale';
COMMENT ON COLUMN wer_by_stratum.estimate IS 'Word error rate, 0.1 is 10 %; may exceed 1; null where no word was said';
COMMENT ON COLUMN wer_by_stratum.ci_low IS 'Lower end of the 95 % interval, in which clips of one person go together; null where it cannot be told, as with one person';
COMMENT ON COLUMN wer_by_stratum.ci_high IS 'Upper end of the 95 % interval';
COMMENT ON COLUMN wer_by_stratum.clips IS 'Transcribed clips that it rests on';
COMMENT ON COLUMN wer_by_stratum.speakers IS 'Persons that it rests on';
COMMENT ON COLUMN wer_by_stratum.effective_clips IS 'How many clips of as many persons, drawn with equal chances, would tell as much';
COMMENT ON COLUMN wer_by_stratum.hours IS 'Hours of audio that it rests on';
COMMENT ON COLUMN wer_by_stratum.hours_needed IS 'How many more hours of the same kind would bring the interval to one point (0.01) on either side';

CREATE TABLE wer_by_product (
    product VARCHAR PRIMARY KEY,
    estimate DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    clips BIGINT,
    speakers BIGINT,
    effective_clips DOUBLE,
    hours DOUBLE,
    hours_needed DOUBLE
);
COMMENT ON TABLE wer_by_product IS 'Word error rate of the recogniser in each product: errors over words, weighted by the inverse inclusion probability (Hájek)';
COMMENT ON COLUMN wer_by_product.product IS 'Product that recorded it';
COMMENT ON COLUMN wer_by_product.estimate IS 'Word error rate, 0.1 is 10 %; may exceed 1; null where no word was said';
COMMENT ON COLUMN wer_by_product.ci_low IS 'Lower end of the 95 % interval, in which clips of one person go together; null where it cannot be told, as with one person';
COMMENT ON COLUMN wer_by_product.ci_high IS 'Upper end of the 95 % interval';
COMMENT ON COLUMN wer_by_product.clips IS 'Transcribed clips that it rests on';
COMMENT ON COLUMN wer_by_product.speakers IS 'Persons that it rests on';
COMMENT ON COLUMN wer_by_product.effective_clips IS 'How many clips of as many persons, drawn with equal chances, would tell as much';
COMMENT ON COLUMN wer_by_product.hours IS 'Hours of audio that it rests on';
COMMENT ON COLUMN wer_by_product.hours_needed IS 'How many more hours of the same kind would bring the interval to one point (0.01) on either side';

CREATE TABLE wer_by_locale (
    locale VARCHAR PRIMARY KEY,
    estimate DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    clips BIGINT,
    speakers BIGINT,
    effective_clips DOUBLE,
    hours DOUBLE,
    hours_needed DOUBLE
);
COMMENT ON TABLE wer_by_locale IS 'Word error rate of the recogniser in each locale: errors over words, weighted by the inverse inclusion probability (Hájek)';
COMMENT ON COLUMN wer_by_locale.locale IS 'BCP 47 tag of the speech';
COMMENT ON COLUMN wer_by_locale.estimate IS 'Word error rate, 0.1 is 10 %; may exceed 1; null where no word was said';
COMMENT ON COLUMN wer_by_locale.ci_low IS 'Lower end of the 95 % interval, in which clips of one person go together; null where it cannot be told, as with one person';
COMMENT ON COLUMN wer_by_locale.ci_high IS 'Upper end of the 95 % interval';
COMMENT ON COLUMN wer_by_locale.clips IS 'Transcribed clips that it rests on';
COMMENT ON COLUMN wer_by_locale.speakers IS 'Persons that it rests on';
COMMENT ON COLUMN wer_by_locale.effective_clips IS 'How many clips of as many persons, drawn with equal chances, would tell as much';
COMMENT ON COLUMN wer_by_locale.hours IS 'Hours of audio that it rests on';
COMMENT ON COLUMN wer_by_locale.hours_needed IS 'How many more hours of the same kind would bring the interval to one point (0.01) on either side';

CREATE TABLE wer_by_week (
    recorded_week VARCHAR PRIMARY KEY,
    estimate DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    clips BIGINT,
    speakers BIGINT,
    effective_clips DOUBLE,
    hours DOUBLE,
    hours_needed DOUBLE
);
COMMENT ON TABLE wer_by_week IS 'Word error rate of the recogniser in each week: errors over words, weighted by the inverse inclusion probability (Hájek)';
COMMENT ON COLUMN wer_by_week.recorded_week IS 'ISO 8601 week of the recording';
COMMENT ON COLUMN wer_by_week.estimate IS 'Word error rate, 0.1 is 10 %; may exceed 1; null where no word was said';
COMMENT ON COLUMN wer_by_week.ci_low IS 'Lower end of the 95 % interval, in which clips of one person go together; null where it cannot be told, as with one person';
COMMENT ON COLUMN wer_by_week.ci_high IS 'Upper end of the 95 % interval';
COMMENT ON COLUMN wer_by_week.clips IS 'Transcribed clips that it rests on';
COMMENT ON COLUMN wer_by_week.speakers IS 'Persons that it rests on';
COMMENT ON COLUMN wer_by_week.effective_clips IS 'How many clips of as many persons, drawn with equal chances, would tell as much';
COMMENT ON COLUMN wer_by_week.hours IS 'Hours of audio that it rests on';
COMMENT ON COLUMN wer_by_week.hours_needed IS 'How many more hours of the same kind would bring the interval to one point (0.01) on either side';

CREATE TABLE vendor_scorecard (
    vendor VARCHAR PRIMARY KEY,
    batches BIGINT,
    overdue_batches BIGINT,
    clips BIGINT,
    returned_clips BIGINT,
    transcribed_clips BIGINT,
    rejected_rows BIGINT,
    refused_files BIGINT,
    reject_rate DOUBLE,
    reject_rate_low DOUBLE,
    reject_rate_high DOUBLE,
    median_turnaround_hours DOUBLE,
    turnaround_low DOUBLE,
    turnaround_high DOUBLE,
    overlap_clips BIGINT,
    pairwise_wer DOUBLE,
    pairwise_wer_low DOUBLE,
    pairwise_wer_high DOUBLE,
    word_alpha DOUBLE,
    word_alpha_low DOUBLE,
    word_alpha_high DOUBLE,
    status_alpha DOUBLE,
    status_alpha_low DOUBLE,
    status_alpha_high DOUBLE,
    withheld_clips BIGINT,
    steering_effect DOUBLE,
    steering_effect_low DOUBLE,
    steering_effect_high DOUBLE
);
COMMENT ON TABLE vendor_scorecard IS 'How each vendor does; columns *_low and *_high are the ends of a 95 % interval, null where it cannot be told';
COMMENT ON COLUMN vendor_scorecard.vendor IS 'Vendor';
COMMENT ON COLUMN vendor_scorecard.batches IS 'Batches that were delivered to it';
COMMENT ON COLUMN vendor_scorecard.overdue_batches IS 'Of these, past their due time without a row for every clip';
COMMENT ON COLUMN vendor_scorecard.clips IS 'Clips that were delivered to it and not recalled';
COMMENT ON COLUMN vendor_scorecard.returned_clips IS 'Clips for which a row was accepted';
COMMENT ON COLUMN vendor_scorecard.transcribed_clips IS 'Of these, with status transcribed';
COMMENT ON COLUMN vendor_scorecard.rejected_rows IS 'Returned rows that were refused';
COMMENT ON COLUMN vendor_scorecard.refused_files IS 'Returned files that were refused whole';
COMMENT ON COLUMN vendor_scorecard.reject_rate IS 'Refused rows over all rows of files that were not refused whole';
COMMENT ON COLUMN vendor_scorecard.reject_rate_low IS 'Lower end of its interval, in which rows of one file go together';
COMMENT ON COLUMN vendor_scorecard.reject_rate_high IS 'Upper end of its interval';
COMMENT ON COLUMN vendor_scorecard.median_turnaround_hours IS 'Median hours from delivery to submission';
COMMENT ON COLUMN vendor_scorecard.turnaround_low IS 'Lower end of its interval, in which clips of one batch go together';
COMMENT ON COLUMN vendor_scorecard.turnaround_high IS 'Upper end of its interval';
COMMENT ON COLUMN vendor_scorecard.overlap_clips IS 'Clips that another vendor returned as well, once for each such vendor';
COMMENT ON COLUMN vendor_scorecard.pairwise_wer IS 'Word errors between its transcripts and those of the others, over the mean length of both';
COMMENT ON COLUMN vendor_scorecard.pairwise_wer_low IS 'Lower end of its interval, in which clips of one person go together';
COMMENT ON COLUMN vendor_scorecard.pairwise_wer_high IS 'Upper end of its interval';
COMMENT ON COLUMN vendor_scorecard.word_alpha IS 'Krippendorff''s alpha of its words and those of the others, aligned: 1 is agreement, 0 is chance';
COMMENT ON COLUMN vendor_scorecard.word_alpha_low IS 'Lower end of its interval';
COMMENT ON COLUMN vendor_scorecard.word_alpha_high IS 'Upper end of its interval';
COMMENT ON COLUMN vendor_scorecard.status_alpha IS 'Krippendorff''s alpha of the status that it and the others give to one clip; null where all have one status';
COMMENT ON COLUMN vendor_scorecard.status_alpha_low IS 'Lower end of its interval';
COMMENT ON COLUMN vendor_scorecard.status_alpha_high IS 'Upper end of its interval';
COMMENT ON COLUMN vendor_scorecard.withheld_clips IS 'Clips whose hypotheses it was not shown';
COMMENT ON COLUMN vendor_scorecard.steering_effect IS 'Word error rate on clips whose hypotheses were withheld, less that on the others: how far showing them steers transcribers';
COMMENT ON COLUMN vendor_scorecard.steering_effect_low IS 'Lower end of its interval, in which clips of one person go together';
COMMENT ON COLUMN vendor_scorecard.steering_effect_high IS 'Upper end of its interval';

CREATE TABLE rejections (
    night DATE,
    stage VARCHAR,
    vendor VARCHAR,
    batch_id VARCHAR,
    clip_key VARCHAR,
    reason VARCHAR
);
COMMENT ON TABLE rejections IS 'Everything that was refused after sampling, with its reason: nothing is lost in silence';
COMMENT ON COLUMN rejections.night IS 'Night that it belongs to';
COMMENT ON COLUMN rejections.stage IS 'validate, manifest (also what was withdrawn before a batch was cut), deliver or collect';
COMMENT ON COLUMN rejections.vendor IS 'Vendor, where one is concerned';
COMMENT ON COLUMN rejections.batch_id IS 'Batch, where one is concerned';
COMMENT ON COLUMN rejections.clip_key IS 'Pseudonym of the clip; null for a returned row that belongs to none, for a file, and for what is sensitive or distress';
COMMENT ON COLUMN rejections.reason IS 'Code of the rule that refused it; sensitive and distress: accepted, and shown to nobody';

CREATE TABLE recalls (
    batch_id VARCHAR,
    n INTEGER,
    vendor VARCHAR,
    clip_count INTEGER,
    state VARCHAR,
    created_at TIMESTAMPTZ,
    noticed_at TIMESTAMPTZ,
    receipted_at TIMESTAMPTZ,
    PRIMARY KEY (batch_id, n)
);
COMMENT ON TABLE recalls IS 'Notices to vendors that clips must be deleted';
COMMENT ON COLUMN recalls.batch_id IS 'Batch in which the clips were delivered';
COMMENT ON COLUMN recalls.n IS 'Number of the recall within its batch';
COMMENT ON COLUMN recalls.vendor IS 'Vendor that must delete';
COMMENT ON COLUMN recalls.clip_count IS 'Clips that are recalled';
COMMENT ON COLUMN recalls.state IS 'OPEN, NOTICED (the notice lies with the vendor) or RECEIPTED (the vendor signed)';
COMMENT ON COLUMN recalls.created_at IS 'When we learned of it';
COMMENT ON COLUMN recalls.noticed_at IS 'When the notice was put on the vendor''s server';
COMMENT ON COLUMN recalls.receipted_at IS 'When the signed receipt was accepted';

CREATE TABLE returns (
    batch_id VARCHAR,
    n INTEGER,
    vendor VARCHAR,
    received_at TIMESTAMPTZ,
    state VARCHAR,
    reason VARCHAR,
    received_rows BIGINT,
    rejected_rows BIGINT,
    loaded_rows BIGINT,
    superseded_rows BIGINT,
    forgotten_rows BIGINT,
    sensitive_rows BIGINT,
    distress_rows BIGINT,
    breach_rows BIGINT
);
COMMENT ON TABLE returns IS 'One row a returned file; received = rejected + loaded + superseded + forgotten: no row is lost';
COMMENT ON COLUMN returns.batch_id IS 'Batch that the file names';
COMMENT ON COLUMN returns.n IS 'Number of the file within its batch';
COMMENT ON COLUMN returns.vendor IS 'Vendor that sent it';
COMMENT ON COLUMN returns.received_at IS 'When it was collected';
COMMENT ON COLUMN returns.state IS 'ACCEPTED (its rows were judged one by one) or REFUSED (whole)';
COMMENT ON COLUMN returns.reason IS 'Why it was refused whole; null otherwise';
COMMENT ON COLUMN returns.received_rows IS 'Rows in the file; 0 when it was refused whole';
COMMENT ON COLUMN returns.rejected_rows IS 'Of these, refused; the reasons are in rejections';
COMMENT ON COLUMN returns.loaded_rows IS 'Of these, the current answer for their clip';
COMMENT ON COLUMN returns.superseded_rows IS 'Of these, replaced by a higher revision';
COMMENT ON COLUMN returns.forgotten_rows IS 'Of these, erased since, because their clip was recalled';
COMMENT ON COLUMN returns.sensitive_rows IS 'Accepted rows with status sensitive';
COMMENT ON COLUMN returns.distress_rows IS 'Accepted rows with status distress';
COMMENT ON COLUMN returns.breach_rows IS 'Rejected rows of clips that the vendor had been told to delete';

CREATE TABLE nights (
    night DATE,
    step VARCHAR,
    reason VARCHAR,
    stratum VARCHAR,
    clips BIGINT,
    hours DOUBLE
);
COMMENT ON TABLE nights IS 'The funnel of each night (refused by reason, eligible, selected, validated, manifested, delivered), the rows of its landing window and how many of them the rules reject (landing, landing_rejected), and its sampling plan by stratum';
COMMENT ON COLUMN nights.night IS 'UTC date of the run';
COMMENT ON COLUMN nights.step IS 'Step of the night';
COMMENT ON COLUMN nights.reason IS 'For refused and rejected clips the reason, for the budget of a stratum what limits it; null otherwise';
COMMENT ON COLUMN nights.stratum IS 'For steps stratum_*: the cell of the sampling plan; null otherwise';
COMMENT ON COLUMN nights.clips IS 'How many clips; null where a step has only hours';
COMMENT ON COLUMN nights.hours IS 'For steps stratum_*: hours of audio that are eligible, wanted by its share, allowed, or chosen; null otherwise';

COMMIT;
