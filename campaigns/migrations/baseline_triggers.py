"""Trigger definitions of the 0.2.0 baseline, frozen: migrations must not change when the models change."""

from collections.abc import Mapping

STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "sqlite": (
        """CREATE TRIGGER sends_inserted AFTER INSERT ON sends WHEN NEW.occasion = ''
BEGIN
INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count) VALUES (NEW.activity_id,
CASE WHEN NEW.state IN ('queued', 'sending') THEN 0 ELSE coalesce(NEW.sent_at, NEW.bounced_at, 0) - coalesce(NEW.sent_at, NEW.bounced_at, 0) % 900000000 END,
CASE NEW.state WHEN 'sending' THEN 'queued' ELSE NEW.state END,
CASE WHEN NEW.state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN NEW.trackable THEN 1 ELSE 0 END +
CASE WHEN NEW.sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN NEW.state = 'bounced' AND NEW.reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN NEW.state = 'bounced' AND NEW.reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(NEW.first_opened_at, NEW.clicked_at, NEW.unsubscribed_at, NEW.complained_at) IS NULL THEN 0 ELSE
CASE WHEN NEW.first_opened_at IS NOT NULL OR NEW.clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN NEW.clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN NEW.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN NEW.complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE NEW.reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, 0, 1)
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = count + excluded.count; END""",
        """CREATE TRIGGER sends_updated AFTER UPDATE OF state, sent_at, bounced_at, trackable, first_opened_at, clicked_at, unsubscribed_at, complained_at, reason, occasion ON sends WHEN
CASE WHEN OLD.state IN ('queued', 'sending') AND NEW.state IN ('queued', 'sending') THEN OLD.reason IS NOT NEW.reason OR OLD.occasion IS NOT NEW.occasion ELSE OLD.state IS NOT NEW.state OR OLD.sent_at IS NOT NEW.sent_at OR OLD.bounced_at IS NOT NEW.bounced_at OR OLD.trackable IS NOT NEW.trackable OR OLD.first_opened_at IS NOT NEW.first_opened_at OR OLD.clicked_at IS NOT NEW.clicked_at OR OLD.unsubscribed_at IS NOT NEW.unsubscribed_at OR OLD.complained_at IS NOT NEW.complained_at OR OLD.reason IS NOT NEW.reason OR OLD.occasion IS NOT NEW.occasion END
BEGIN
INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count)
SELECT OLD.activity_id,
CASE WHEN OLD.state IN ('queued', 'sending') THEN 0 ELSE coalesce(OLD.sent_at, OLD.bounced_at, 0) - coalesce(OLD.sent_at, OLD.bounced_at, 0) % 900000000 END,
CASE OLD.state WHEN 'sending' THEN 'queued' ELSE OLD.state END,
CASE WHEN OLD.state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN OLD.trackable THEN 1 ELSE 0 END +
CASE WHEN OLD.sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN OLD.state = 'bounced' AND OLD.reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN OLD.state = 'bounced' AND OLD.reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(OLD.first_opened_at, OLD.clicked_at, OLD.unsubscribed_at, OLD.complained_at) IS NULL THEN 0 ELSE
CASE WHEN OLD.first_opened_at IS NOT NULL OR OLD.clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN OLD.clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN OLD.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN OLD.complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE OLD.reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, 0, -1
WHERE OLD.occasion = ''
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = count + excluded.count;
INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count)
SELECT NEW.activity_id,
CASE WHEN NEW.state IN ('queued', 'sending') THEN 0 ELSE coalesce(NEW.sent_at, NEW.bounced_at, 0) - coalesce(NEW.sent_at, NEW.bounced_at, 0) % 900000000 END,
CASE NEW.state WHEN 'sending' THEN 'queued' ELSE NEW.state END,
CASE WHEN NEW.state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN NEW.trackable THEN 1 ELSE 0 END +
CASE WHEN NEW.sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN NEW.state = 'bounced' AND NEW.reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN NEW.state = 'bounced' AND NEW.reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(NEW.first_opened_at, NEW.clicked_at, NEW.unsubscribed_at, NEW.complained_at) IS NULL THEN 0 ELSE
CASE WHEN NEW.first_opened_at IS NOT NULL OR NEW.clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN NEW.clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN NEW.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN NEW.complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE NEW.reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, 0, 1
WHERE NEW.occasion = ''
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = count + excluded.count; END""",
        """CREATE TRIGGER sends_deleted AFTER DELETE ON sends
BEGIN
INSERT INTO send_counts (activity_id, bucket, state, flags, shard, count)
SELECT OLD.activity_id,
CASE WHEN OLD.state IN ('queued', 'sending') THEN 0 ELSE coalesce(OLD.sent_at, OLD.bounced_at, 0) - coalesce(OLD.sent_at, OLD.bounced_at, 0) % 900000000 END,
CASE OLD.state WHEN 'sending' THEN 'queued' ELSE OLD.state END,
CASE WHEN OLD.state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN OLD.trackable THEN 1 ELSE 0 END +
CASE WHEN OLD.sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN OLD.state = 'bounced' AND OLD.reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN OLD.state = 'bounced' AND OLD.reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(OLD.first_opened_at, OLD.clicked_at, OLD.unsubscribed_at, OLD.complained_at) IS NULL THEN 0 ELSE
CASE WHEN OLD.first_opened_at IS NOT NULL OR OLD.clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN OLD.clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN OLD.unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN OLD.complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE OLD.reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, 0, -1
WHERE OLD.occasion = ''
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = count + excluded.count; END""",
        """CREATE TRIGGER conversion_attributions_inserted AFTER INSERT ON conversion_attributions
BEGIN
INSERT INTO total_attributions (activity_id, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT NEW.activity_id, 0, (NEW.own), (CASE WHEN NEW.value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.value, 0)), (NEW.first), (CASE WHEN NEW.first_value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.first_value, 0)), (NEW.last), (CASE WHEN NEW.last_value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.last_value, 0)), (NEW.touched), (NEW.of_channel), (NEW.of_campaign)
WHERE true
ON CONFLICT (activity_id, shard) DO UPDATE SET own = own + excluded.own, valued = valued + excluded.valued, value = value + excluded.value, first = first + excluded.first, first_valued = first_valued + excluded.first_valued, first_value = first_value + excluded.first_value, last = last + excluded.last, last_valued = last_valued + excluded.last_valued, last_value = last_value + excluded.last_value, touched = touched + excluded.touched, of_channel = of_channel + excluded.of_channel, of_campaign = of_campaign + excluded.of_campaign;
INSERT INTO daily_attributions (activity_id, day, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT NEW.activity_id, NEW.at / 86400000000 * 86400000000, 0, (NEW.own), (CASE WHEN NEW.value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.value, 0)), (NEW.first), (CASE WHEN NEW.first_value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.first_value, 0)), (NEW.last), (CASE WHEN NEW.last_value IS NULL THEN 0 ELSE 1 END), (coalesce(NEW.last_value, 0)), (NEW.touched), (NEW.of_channel), (NEW.of_campaign)
WHERE true
ON CONFLICT (activity_id, day, shard) DO UPDATE SET own = own + excluded.own, valued = valued + excluded.valued, value = value + excluded.value, first = first + excluded.first, first_valued = first_valued + excluded.first_valued, first_value = first_value + excluded.first_value, last = last + excluded.last, last_valued = last_valued + excluded.last_valued, last_value = last_value + excluded.last_value, touched = touched + excluded.touched, of_channel = of_channel + excluded.of_channel, of_campaign = of_campaign + excluded.of_campaign; END""",
        """CREATE TRIGGER conversion_attributions_deleted AFTER DELETE ON conversion_attributions
BEGIN
INSERT INTO total_attributions (activity_id, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT OLD.activity_id, 0, -(OLD.own), -(CASE WHEN OLD.value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.value, 0)), -(OLD.first), -(CASE WHEN OLD.first_value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.first_value, 0)), -(OLD.last), -(CASE WHEN OLD.last_value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.last_value, 0)), -(OLD.touched), -(OLD.of_channel), -(OLD.of_campaign)
WHERE true
ON CONFLICT (activity_id, shard) DO UPDATE SET own = own + excluded.own, valued = valued + excluded.valued, value = value + excluded.value, first = first + excluded.first, first_valued = first_valued + excluded.first_valued, first_value = first_value + excluded.first_value, last = last + excluded.last, last_valued = last_valued + excluded.last_valued, last_value = last_value + excluded.last_value, touched = touched + excluded.touched, of_channel = of_channel + excluded.of_channel, of_campaign = of_campaign + excluded.of_campaign;
INSERT INTO daily_attributions (activity_id, day, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT OLD.activity_id, OLD.at / 86400000000 * 86400000000, 0, -(OLD.own), -(CASE WHEN OLD.value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.value, 0)), -(OLD.first), -(CASE WHEN OLD.first_value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.first_value, 0)), -(OLD.last), -(CASE WHEN OLD.last_value IS NULL THEN 0 ELSE 1 END), -(coalesce(OLD.last_value, 0)), -(OLD.touched), -(OLD.of_channel), -(OLD.of_campaign)
WHERE true
ON CONFLICT (activity_id, day, shard) DO UPDATE SET own = own + excluded.own, valued = valued + excluded.valued, value = value + excluded.value, first = first + excluded.first, first_valued = first_valued + excluded.first_valued, first_value = first_value + excluded.first_value, last = last + excluded.last, last_valued = last_valued + excluded.last_valued, last_value = last_value + excluded.last_value, touched = touched + excluded.touched, of_channel = of_channel + excluded.of_channel, of_campaign = of_campaign + excluded.of_campaign; END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION count_sends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF TG_OP = 'UPDATE' THEN IF NOT (EXISTS (SELECT
FROM after
WHERE state NOT IN ('queued', 'sending') OR reason <> '' OR occasion <> '') OR EXISTS (SELECT
FROM before
WHERE state NOT IN ('queued', 'sending') OR reason <> '' OR occasion <> '')) THEN RETURN NULL;
END IF;
END IF; IF TG_OP = 'INSERT' THEN
INSERT INTO send_counts AS kept (activity_id, bucket, state, flags, shard, count)
SELECT activity_id,
CASE WHEN state IN ('queued', 'sending') THEN timestamptz 'epoch' ELSE date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz 'epoch') END,
CASE state WHEN 'sending' THEN 'queued' ELSE state END,
CASE WHEN state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN trackable THEN 1 ELSE 0 END +
CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(first_opened_at, clicked_at, unsubscribed_at, complained_at) IS NULL THEN 0 ELSE
CASE WHEN first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, pg_backend_pid() & 255, sum(change)
FROM (SELECT *, 1 AS change
FROM after) AS changed
WHERE occasion = ''
GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0
ORDER BY 1, 2, 3, 4
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = kept.count + excluded.count;
ELSIF TG_OP = 'UPDATE' THEN
INSERT INTO send_counts AS kept (activity_id, bucket, state, flags, shard, count)
SELECT activity_id,
CASE WHEN state IN ('queued', 'sending') THEN timestamptz 'epoch' ELSE date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz 'epoch') END,
CASE state WHEN 'sending' THEN 'queued' ELSE state END,
CASE WHEN state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN trackable THEN 1 ELSE 0 END +
CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(first_opened_at, clicked_at, unsubscribed_at, complained_at) IS NULL THEN 0 ELSE
CASE WHEN first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, pg_backend_pid() & 255, sum(change)
FROM (SELECT *, -1 AS change
FROM before UNION ALL
SELECT *, 1 AS change
FROM after) AS changed
WHERE occasion = ''
GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0
ORDER BY 1, 2, 3, 4
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = kept.count + excluded.count; ELSE
INSERT INTO send_counts AS kept (activity_id, bucket, state, flags, shard, count)
SELECT activity_id,
CASE WHEN state IN ('queued', 'sending') THEN timestamptz 'epoch' ELSE date_bin('15 minutes', coalesce(sent_at, bounced_at, timestamptz 'epoch'), timestamptz 'epoch') END,
CASE state WHEN 'sending' THEN 'queued' ELSE state END,
CASE WHEN state IN ('queued', 'sending') THEN 0 ELSE
CASE WHEN trackable THEN 1 ELSE 0 END +
CASE WHEN sent_at IS NOT NULL THEN 16 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'hard' THEN 32 ELSE 0 END +
CASE WHEN state = 'bounced' AND reason = 'policy' THEN 64 ELSE 0 END +
CASE WHEN coalesce(first_opened_at, clicked_at, unsubscribed_at, complained_at) IS NULL THEN 0 ELSE
CASE WHEN first_opened_at IS NOT NULL OR clicked_at IS NOT NULL THEN 2 ELSE 0 END +
CASE WHEN clicked_at IS NOT NULL THEN 4 ELSE 0 END +
CASE WHEN unsubscribed_at IS NOT NULL THEN 8 ELSE 0 END +
CASE WHEN complained_at IS NOT NULL THEN 128 ELSE 0 END END END +
CASE reason WHEN '' THEN 0 WHEN 'suppressed' THEN 256 WHEN 'no_consent' THEN 512 WHEN 'capped' THEN 1024 WHEN 'expired' THEN 2048 WHEN 'given up' THEN 4096 WHEN 'window' THEN 8192 ELSE 0 END, pg_backend_pid() & 255, sum(change)
FROM (SELECT *, -1 AS change
FROM before) AS changed
WHERE occasion = ''
GROUP BY 1, 2, 3, 4 HAVING sum(change) <> 0
ORDER BY 1, 2, 3, 4
ON CONFLICT (activity_id, bucket, state, flags, shard) DO UPDATE SET count = kept.count + excluded.count;
END IF; RETURN NULL; END $$""",
        """CREATE OR REPLACE TRIGGER sends_inserted AFTER INSERT ON sends REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_sends()""",
        """CREATE OR REPLACE TRIGGER sends_updated AFTER UPDATE ON sends REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_sends()""",
        """CREATE OR REPLACE TRIGGER sends_deleted AFTER DELETE ON sends REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION count_sends()""",
        """CREATE OR REPLACE FUNCTION sum_conversion_attributions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF TG_OP = 'INSERT' THEN
INSERT INTO total_attributions AS kept (activity_id, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT activity_id, pg_backend_pid() & 255, sum(own), sum(CASE WHEN value IS NULL THEN 0 ELSE 1 END), sum(coalesce(value, 0)), sum(first), sum(CASE WHEN first_value IS NULL THEN 0 ELSE 1 END), sum(coalesce(first_value, 0)), sum(last), sum(CASE WHEN last_value IS NULL THEN 0 ELSE 1 END), sum(coalesce(last_value, 0)), sum(touched), sum(of_channel), sum(of_campaign)
FROM changed
GROUP BY 1, 2
ORDER BY 1, 2
ON CONFLICT (activity_id, shard) DO UPDATE SET own = kept.own + excluded.own, valued = kept.valued + excluded.valued, value = kept.value + excluded.value, first = kept.first + excluded.first, first_valued = kept.first_valued + excluded.first_valued, first_value = kept.first_value + excluded.first_value, last = kept.last + excluded.last, last_valued = kept.last_valued + excluded.last_valued, last_value = kept.last_value + excluded.last_value, touched = kept.touched + excluded.touched, of_channel = kept.of_channel + excluded.of_channel, of_campaign = kept.of_campaign + excluded.of_campaign;
INSERT INTO daily_attributions AS kept (activity_id, day, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT activity_id, date_trunc('day', at, 'UTC'), pg_backend_pid() & 255, sum(own), sum(CASE WHEN value IS NULL THEN 0 ELSE 1 END), sum(coalesce(value, 0)), sum(first), sum(CASE WHEN first_value IS NULL THEN 0 ELSE 1 END), sum(coalesce(first_value, 0)), sum(last), sum(CASE WHEN last_value IS NULL THEN 0 ELSE 1 END), sum(coalesce(last_value, 0)), sum(touched), sum(of_channel), sum(of_campaign)
FROM changed
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (activity_id, day, shard) DO UPDATE SET own = kept.own + excluded.own, valued = kept.valued + excluded.valued, value = kept.value + excluded.value, first = kept.first + excluded.first, first_valued = kept.first_valued + excluded.first_valued, first_value = kept.first_value + excluded.first_value, last = kept.last + excluded.last, last_valued = kept.last_valued + excluded.last_valued, last_value = kept.last_value + excluded.last_value, touched = kept.touched + excluded.touched, of_channel = kept.of_channel + excluded.of_channel, of_campaign = kept.of_campaign + excluded.of_campaign; ELSE
INSERT INTO total_attributions AS kept (activity_id, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT activity_id, pg_backend_pid() & 255, -sum(own), -sum(CASE WHEN value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(value, 0)), -sum(first), -sum(CASE WHEN first_value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(first_value, 0)), -sum(last), -sum(CASE WHEN last_value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(last_value, 0)), -sum(touched), -sum(of_channel), -sum(of_campaign)
FROM changed
GROUP BY 1, 2
ORDER BY 1, 2
ON CONFLICT (activity_id, shard) DO UPDATE SET own = kept.own + excluded.own, valued = kept.valued + excluded.valued, value = kept.value + excluded.value, first = kept.first + excluded.first, first_valued = kept.first_valued + excluded.first_valued, first_value = kept.first_value + excluded.first_value, last = kept.last + excluded.last, last_valued = kept.last_valued + excluded.last_valued, last_value = kept.last_value + excluded.last_value, touched = kept.touched + excluded.touched, of_channel = kept.of_channel + excluded.of_channel, of_campaign = kept.of_campaign + excluded.of_campaign;
INSERT INTO daily_attributions AS kept (activity_id, day, shard, own, valued, value, first, first_valued, first_value, last, last_valued, last_value, touched, of_channel, of_campaign)
SELECT activity_id, date_trunc('day', at, 'UTC'), pg_backend_pid() & 255, -sum(own), -sum(CASE WHEN value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(value, 0)), -sum(first), -sum(CASE WHEN first_value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(first_value, 0)), -sum(last), -sum(CASE WHEN last_value IS NULL THEN 0 ELSE 1 END), -sum(coalesce(last_value, 0)), -sum(touched), -sum(of_channel), -sum(of_campaign)
FROM changed
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (activity_id, day, shard) DO UPDATE SET own = kept.own + excluded.own, valued = kept.valued + excluded.valued, value = kept.value + excluded.value, first = kept.first + excluded.first, first_valued = kept.first_valued + excluded.first_valued, first_value = kept.first_value + excluded.first_value, last = kept.last + excluded.last, last_valued = kept.last_valued + excluded.last_valued, last_value = kept.last_value + excluded.last_value, touched = kept.touched + excluded.touched, of_channel = kept.of_channel + excluded.of_channel, of_campaign = kept.of_campaign + excluded.of_campaign;
END IF; RETURN NULL; END $$""",
        """CREATE OR REPLACE TRIGGER conversion_attributions_inserted AFTER INSERT ON conversion_attributions REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sum_conversion_attributions()""",
        """CREATE OR REPLACE TRIGGER conversion_attributions_deleted AFTER DELETE ON conversion_attributions REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION sum_conversion_attributions()""",
    ),
}
"""By dialect, in order of execution."""
