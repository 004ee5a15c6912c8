"""The hash chain of a run: one function appends, nothing changes or deletes (design.md section 8)."""

from django.db import migrations

APPEND = """
CREATE FUNCTION append_run_events(p_run bigint, p_seq integer, p_kinds text[], p_texts text[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    last_seq integer;
    last_hash text;
BEGIN
    -- The run's row is the head of its chain: whoever holds it appends, everybody else waits.
    PERFORM 1 FROM public.upgrades_run WHERE id = p_run FOR UPDATE;
    SELECT seq, hash INTO last_seq, last_hash FROM public.upgrades_runevent
        WHERE run_id = p_run ORDER BY seq DESC LIMIT 1;
    last_seq := coalesce(last_seq, 0);
    last_hash := coalesce(last_hash, repeat('0', 64));
    IF p_seq <> last_seq + 1 THEN
        RAISE EXCEPTION 'run % is at event %, so event % cannot follow', p_run, last_seq, p_seq
            USING ERRCODE = 'serialization_failure';
    END IF;
    FOR i IN 1 .. array_length(p_texts, 1) LOOP
        INSERT INTO public.upgrades_runevent (run_id, seq, kind, text, previous, hash)
        VALUES (p_run, last_seq + i, p_kinds[i], p_texts[i], last_hash,
                encode(sha256(convert_to(last_hash || E'\\n' || p_texts[i], 'UTF8')), 'hex'))
        RETURNING hash INTO last_hash;
    END LOOP;
    RETURN last_hash;
END $$;
"""

REFUSE = """
CREATE FUNCTION refuse_change_of_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the record of a run is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER record_is_append_only BEFORE UPDATE OR DELETE ON upgrades_runevent
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_record();
"""

UNDO = """
DROP TRIGGER record_is_append_only ON upgrades_runevent;
DROP FUNCTION refuse_change_of_record();
DROP FUNCTION append_run_events(bigint, integer, text[], text[]);
"""


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0001_tables")]
    operations = [migrations.RunSQL(APPEND + REFUSE, UNDO)]
