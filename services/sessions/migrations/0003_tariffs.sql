-- Loading says as well whether tariffs are configured otherwise than before, and what a token may charge for; the uses
-- of a token that may be used any number of times at once are left out. Plans are made once for all batches.

CREATE OR REPLACE FUNCTION sessions.load(
    stations text[],                -- every station of the batch
    named_stations text[],          -- and beside each other the transactions that its events name
    named_transactions text[],
    due uuid[],                     -- sessions that have come due
    tokens text[]                   -- keys of id tokens
) RETURNS TABLE (kind text, name text, detail text, fold bytea)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN QUERY
    SELECT 'station', s.station_id, NULL::text, s.fold
      FROM sessions.stations s WHERE s.station_id = ANY (stations)
    UNION ALL
    SELECT 'config', c.station_id, json_build_array(c.site_id, c.quirks)::text, NULL
      FROM config.stations c
     WHERE c.station_id = ANY (stations) AND (c.site_id IS NOT NULL OR c.quirks <> '{}')
    UNION ALL
    SELECT 'session', t.session_id::text, NULL, t.fold
      FROM sessions.transactions t WHERE t.is_open AND t.station_id = ANY (stations)
    UNION ALL
    SELECT 'session', t.session_id::text, NULL, t.fold
      FROM unnest(named_stations, named_transactions) AS n (station_id, transaction_id)
      JOIN sessions.transactions t USING (station_id, transaction_id)
     WHERE NOT t.is_open
    UNION ALL
    SELECT 'session', t.session_id::text, NULL, t.fold
      FROM sessions.stations s, unnest(s.unsettled) AS u (session_id)
      JOIN sessions.transactions t USING (session_id)
     WHERE s.station_id = ANY (stations) AND NOT t.is_open
    UNION ALL
    SELECT 'session', t.session_id::text, NULL, t.fold
      FROM sessions.transactions t WHERE t.session_id = ANY (due) AND NOT t.is_open
    UNION ALL
    SELECT 'token', k.id_token_key, json_build_array(
               k.id_token_key, k.id_token, k.id_token_type, k.status,
               CASE WHEN isfinite(k.expires_at) THEN (extract(epoch FROM k.expires_at) * 1000)::bigint END,
               CASE WHEN isfinite(k.valid_from) THEN (extract(epoch FROM k.valid_from) * 1000)::bigint END,
               k.group_id, k.cache_expires_seconds, k.allow_concurrent, k.max_concurrent,
               k.allowed_stations, k.allowed_sites, k.language, k.max_cost::text, k.max_energy_wh,
               k.max_time_seconds)::text, NULL
      FROM config.tokens k WHERE k.id_token_key = ANY (tokens)
    UNION ALL
    SELECT 'use', u.id_token_key, u.session_id::text, NULL
      FROM config.tokens k,
           LATERAL (SELECT t.id_token_key, t.session_id
                      FROM sessions.transactions t
                     WHERE t.is_open AND t.authorization_status = 'Accepted' AND t.id_token_key = k.id_token_key
                     LIMIT k.max_concurrent + 1) AS u  -- more than are allowed, whichever of them is the one that asks
     WHERE k.id_token_key = ANY (tokens) AND NOT k.allow_concurrent
    UNION ALL
    SELECT 'tariffs', NULL, r.revision::text, NULL
      FROM config.tariff_revision r WHERE r.only_row;
END
$$;

ALTER FUNCTION sessions.seen SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION sessions.store SET plan_cache_mode = force_generic_plan;
