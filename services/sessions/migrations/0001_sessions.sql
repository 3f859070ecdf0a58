-- Charging sessions, their events and meter values. Written by the sessions service alone.
--
-- What the fold knows of a session is its `fold` column, a compact JSON array that only the fold reads; the columns beside it
-- say the same for queries. Energy is exact: numeric Wh with six decimals. A replay from offset 0 into empty tables
-- gives the same rows; `due_at` is the one exception, it only says when to look next.

CREATE SCHEMA IF NOT EXISTS sessions;

CREATE TABLE sessions.transactions (
    session_id uuid PRIMARY KEY,                 -- made of station, transaction id and generation
    station_id text NOT NULL,
    transaction_id text NOT NULL,                -- as the station knows it; 1.6: the number that it was given
    generation int NOT NULL,                     -- counts the transactions for which the station used this id
    ocpp_version text NOT NULL,                  -- 1.6, 2.0.1 or 2.1
    site_id text,                                -- of the station when the session began
    evse_id bigint NOT NULL,                     -- 1.6: the connector; 0: not known
    connector_id bigint NOT NULL,                -- 0: not known
    id_token text,                               -- as the station sent it
    id_token_key text,                           -- as config.tokens has it
    id_token_type text,
    group_id text,
    authorization_status text,                   -- what the token was answered with
    state text NOT NULL,                         -- open, incomplete, ending, ended, closed, orphan or joined
    is_open boolean NOT NULL,                    -- energy may flow: neither stopped nor closed
    is_final boolean NOT NULL,                   -- may be billed
    is_complete boolean NOT NULL,                -- nothing is missing from its start to its stop
    opened_at timestamptz NOT NULL,              -- when its first event was received
    started_at timestamptz,                      -- the station's time, corrected where its clock is proven wrong
    ended_at timestamptz,
    last_event_at timestamptz NOT NULL,          -- when its last event was received
    charging_state text,
    energy_wh numeric(24, 6) NOT NULL,
    energy_rung text NOT NULL,                   -- what the energy rests on, from `signed` down to `power_integral` and `none`
    register_begin_wh numeric(24, 6),
    register_end_wh numeric(24, 6),
    stop_reason text,
    reservation_id bigint,
    remote_start_id bigint,
    event_count bigint NOT NULL,                 -- events on csms.session-events so far
    flags text[] NOT NULL,                       -- what was noticed, such as register_fell
    due_at timestamptz,                          -- when the watchdog looks at it next
    fold bytea NOT NULL
) WITH (fillfactor = 60);

-- Rows are updated for every event. Only what changes at the begin and the end of a session is indexed, so that
-- all other updates stay within their page (HOT).
CREATE UNIQUE INDEX transactions_station ON sessions.transactions (station_id, transaction_id, generation);
CREATE INDEX transactions_opened ON sessions.transactions (opened_at, session_id);
CREATE INDEX transactions_open ON sessions.transactions (station_id) WHERE is_open;
CREATE INDEX transactions_token ON sessions.transactions (id_token_key)
    WHERE is_open AND authorization_status = 'Accepted';
CREATE INDEX transactions_due ON sessions.transactions (due_at) WHERE due_at IS NOT NULL;

COMMENT ON TABLE sessions.transactions IS 'One row per session, of all versions of OCPP. Written by the sessions service.';

CREATE TABLE sessions.stations (
    station_id text PRIMARY KEY,
    unattributed_wh numeric(24, 6) NOT NULL DEFAULT 0, -- energy that its registers counted outside of any session
    unsettled uuid[] NOT NULL DEFAULT '{}',      -- sessions closed without a stop and stops without a session, the latest ones
    fold bytea NOT NULL                          -- as in sessions.transactions: clock, connection, registers of each EVSE
) WITH (fillfactor = 70);

COMMENT ON TABLE sessions.stations IS
    'What the fold keeps of a station beside its sessions. Written by the sessions service.';

CREATE TABLE sessions.meter_values (
    session_id uuid NOT NULL,                    -- of the session; for values outside of any, a UUID of station and EVSE
    event_key bigint NOT NULL,                   -- 2.x: seqNo; 1.6: -1 start, -2 stop, else a hash of the content
    content_hash int NOT NULL,                   -- tells events of the same key apart
    station_id text NOT NULL,
    evse_id bigint NOT NULL,
    event text NOT NULL,                         -- Started, Updated, Ended, StartTransaction, StopTransaction or MeterValues
    trigger text,                                -- triggerReason of 2.x
    in_session boolean NOT NULL,                 -- false: outside of any session
    happened_at timestamptz NOT NULL,            -- the station's time, corrected where its clock is proven wrong
    station_at timestamptz,                      -- as the station sent it; null if it could not be read
    received_at timestamptz NOT NULL,
    shape_id bigint,                             -- what was sampled; null: no samples
    samples bytea,                               -- the values, each 8 bytes big-endian: millionths of the SI unit
    sample_times bytea,                          -- where the samples have several times: each sample's in Unix milliseconds
    payload bytea                                -- JSON text as it came, where the other columns do not hold all of it
);

CREATE INDEX meter_values_session ON sessions.meter_values (session_id, event_key);

COMMENT ON TABLE sessions.meter_values IS
    'One row per event of a session, with its meter values; appended. Written by the sessions service.';

CREATE TABLE sessions.sample_shapes (
    shape_id bigint PRIMARY KEY,                 -- a hash of the rest
    measurands text[] NOT NULL,
    contexts text[] NOT NULL,
    phases text[] NOT NULL,
    locations text[] NOT NULL,
    units text[] NOT NULL,                       -- SI
    source_units text[] NOT NULL,                -- as the station spelled them, null where it named none
    multipliers int[] NOT NULL,                  -- powers of ten beside the unit, 2.x only
    signed boolean[] NOT NULL                    -- 1.6: the value is signed data
);

COMMENT ON TABLE sessions.sample_shapes IS
    'Which samples meter values consist of, in order; many events share one. Written by the sessions service.';

CREATE TABLE sessions.signed_values (
    session_id uuid NOT NULL,
    event_key bigint NOT NULL,
    sample_index int NOT NULL,                   -- its place among the samples of its meter value
    station_at timestamptz,
    context text NOT NULL,
    data bytea NOT NULL,                         -- byte for byte
    encoding_method text NOT NULL,
    signing_method text NOT NULL,
    public_key text NOT NULL
);

CREATE INDEX signed_values_session ON sessions.signed_values (session_id, event_key);

COMMENT ON TABLE sessions.signed_values IS 'Signed meter data as it came. Written by the sessions service.';

CREATE TABLE sessions.authorizations (
    station_id text NOT NULL,
    received_at timestamptz NOT NULL,
    action text NOT NULL,                        -- Authorize, StartTransaction, StopTransaction or TransactionEvent
    id_token text NOT NULL,
    id_token_type text,
    status text NOT NULL,                        -- as AuthorizationStatusEnumType of 2.x spells it
    session_id uuid
);

CREATE INDEX authorizations_received ON sessions.authorizations USING brin (received_at);

COMMENT ON TABLE sessions.authorizations IS 'Which id token was answered how, appended. Written by the sessions service.';

CREATE TABLE sessions.reservation_updates (
    station_id text NOT NULL,
    reservation_id bigint NOT NULL,
    status text NOT NULL,                        -- Expired, Removed or NoTransaction
    received_at timestamptz NOT NULL,
    PRIMARY KEY (station_id, reservation_id, status)
);

COMMENT ON TABLE sessions.reservation_updates IS
    'What stations said of their reservations. Written by the sessions service.';

CREATE FUNCTION sessions.unpack(packed bytea, place int) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('x' || encode(substr(packed, place * 8 - 7, 8), 'hex'))::bit(64)::bigint;

COMMENT ON FUNCTION sessions.unpack IS 'The number at a place, counted from 1, among packed 64-bit numbers.';

CREATE VIEW sessions.meter_samples AS
SELECT m.session_id,
       m.event_key,
       m.station_id,
       m.evse_id,
       m.event,
       m.in_session,
       m.received_at,
       CASE WHEN m.sample_times IS NULL THEN m.happened_at
            ELSE to_timestamp(sessions.unpack(m.sample_times, s.place::int) / 1000.0) END AS happened_at,
       s.place::int AS place,
       s.measurand,
       s.phase,
       s.location,
       s.context,
       s.unit,
       nullif(sessions.unpack(m.samples, s.place::int), (-9223372036854775808)) * 0.000001 AS value,
       s.source_unit,
       s.multiplier
  FROM sessions.meter_values m
  JOIN sessions.sample_shapes k USING (shape_id),
       unnest(k.measurands, k.phases, k.locations, k.contexts, k.units, k.source_units, k.multipliers)
       WITH ORDINALITY AS s (measurand, phase, location, context, unit, source_unit, multiplier, place);

COMMENT ON VIEW sessions.meter_samples IS
    'Meter values one sample a row, in SI units; null where a value could not be read.';
