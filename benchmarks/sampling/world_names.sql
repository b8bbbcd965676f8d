-- What the made-up clips are dealt from: 60 locales with their country, 5 products, 64 words. The first ones are common.
CREATE TABLE names AS
SELECT
    [
        'en-US', 'de-DE', 'fr-FR', 'es-ES', 'it-IT', 'ja-JP', 'pt-BR', 'en-GB', 'es-MX', 'zh-CN', 'ko-KR', 'nl-NL',
        'pl-PL', 'sv-SE', 'tr-TR', 'hi-IN', 'en-IN', 'fr-CA', 'en-CA', 'de-AT', 'de-CH', 'fr-CH', 'it-CH', 'fr-BE',
        'nl-BE', 'da-DK', 'nb-NO', 'fi-FI', 'pt-PT', 'cs-CZ', 'sk-SK', 'hu-HU', 'ro-RO', 'bg-BG', 'el-GR', 'hr-HR',
        'sl-SI', 'lt-LT', 'lv-LV', 'et-EE', 'uk-UA', 'ar-EG', 'ar-SA', 'he-IL', 'th-TH', 'vi-VN', 'id-ID', 'ms-MY',
        'ta-IN', 'te-IN', 'bn-IN', 'en-AU', 'en-NZ', 'en-IE', 'en-ZA', 'es-AR', 'es-CO', 'es-CL', 'ca-ES', 'zh-TW'
    ] AS locales,
    ['assistant', 'translator', 'dictation', 'voicemail', 'captions'] AS products,
    ['button', 'wake_word', 'call', 'button', 'call'] AS activations,
    string_split(
        'the a you it to and that is what of in how we this do not on for please can will my play call open with '
        || 'message music today tomorrow weather light time next turn off set alarm home read back again where who '
        || 'when now your room door stop name send number work house road water long little old know',
        ' '
    ) AS words;
-- A text's own number from 0 up to but not including 1: the 53 bits that a double holds.
CREATE MACRO share(text) AS (hash(text) >> 11)::DOUBLE / 9007199254740992;
