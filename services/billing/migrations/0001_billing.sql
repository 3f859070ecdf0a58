-- What sessions cost. Written by the billing service alone.
--
-- Money is exact: numeric in the currency's own unit, rounded once. Energy is numeric Wh with six decimals. A replay from offset 0
-- into empty tables gives the same charge detail records, byte for byte.

CREATE SCHEMA IF NOT EXISTS billing;

CREATE TABLE billing.sessions (
    session_id uuid PRIMARY KEY,
    station_id text NOT NULL,
    transaction_id text NOT NULL,                -- as the station knows it
    site_id text,
    evse_id bigint NOT NULL,
    connector_id bigint NOT NULL,
    id_token text,                               -- as the station sent it
    id_token_type text,
    ocpp_version text NOT NULL,                  -- 1.6, 2.0.1 or 2.1
    status text NOT NULL,                        -- open, priced, unpriced (it has no tariff) or failed
    reason text,                                 -- why it is unpriced or failed
    tariff_id text,                              -- chosen once, when the session began
    tariff_version bigint,
    time_zone text,                              -- by whose clock the tariff is read
    currency text,
    cost_excl numeric,                           -- before tax; of an open session so far, else of the record that stands
    cost_incl numeric,                           -- after tax
    energy_wh numeric(24, 6) NOT NULL,
    energy_rung text NOT NULL,                   -- what the energy rests on, as in sessions.transactions
    started_at timestamptz,
    ended_at timestamptz,
    cdr_id text,                                 -- the record that stands
    cdr_count int NOT NULL DEFAULT 0,            -- records so far, credits left out
    flags text[] NOT NULL DEFAULT '{}',          -- what was noticed, of the session and of its price
    updated_at timestamptz NOT NULL,             -- when the newest event that this row knows was received
    fold bytea NOT NULL                          -- what the fold keeps; only the fold reads it
) WITH (fillfactor = 70);

CREATE INDEX sessions_started ON billing.sessions (started_at, session_id);
CREATE INDEX sessions_station ON billing.sessions (station_id, transaction_id);
CREATE INDEX sessions_unsettled ON billing.sessions (status, started_at) WHERE status <> 'priced';

COMMENT ON TABLE billing.sessions IS
    'One row per session with its price; on a busy system up to a minute behind. Written by the billing service.';

CREATE TABLE billing.facts (
    session_id uuid NOT NULL,
    sequence bigint NOT NULL,                    -- of the last event that they come from
    facts bytea NOT NULL,                        -- what is known of the session for its price; see busbar/pricing/session_facts.py
    PRIMARY KEY (session_id, sequence)
);

COMMENT ON TABLE billing.facts IS
    'What sessions are priced from, appended with each write of their row. Written by the billing service.';

CREATE TABLE billing.journal (
    partition int NOT NULL,
    batch bigint NOT NULL,                       -- counts the batches of the partition
    entries bytea NOT NULL,                      -- facts that no row of billing.facts holds yet
    PRIMARY KEY (partition, batch)
);

COMMENT ON TABLE billing.journal IS
    'Facts of the last batches, until the rows of their sessions are written. Written by the billing service.';

CREATE TABLE billing.cdrs (
    cdr_id text PRIMARY KEY,                     -- made of session and number; a credit's ends in -C
    session_id uuid NOT NULL,
    number int NOT NULL,                         -- counts the records of the session from 1; a credit has that of what it takes back
    credit boolean NOT NULL,
    credit_reference_id text,                    -- the record that a credit takes back
    station_id text NOT NULL,
    site_id text,
    id_token text,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    currency text NOT NULL,
    total_excl numeric NOT NULL,                 -- before tax; of a credit negative
    total_incl numeric NOT NULL,
    energy_wh numeric(24, 6) NOT NULL,
    energy_rung text NOT NULL,
    tariff_id text NOT NULL,
    tariff_version bigint NOT NULL,
    flags text[] NOT NULL,
    ocpi text NOT NULL,                          -- JSON: the CDR of OCPI 2.3.0
    bill text NOT NULL,                          -- JSON: why it costs that, line by line; a receipt can be made of it alone
    last_updated timestamptz NOT NULL            -- when the event that led to it was received
);

CREATE INDEX cdrs_session ON billing.cdrs (session_id, number);
CREATE INDEX cdrs_updated ON billing.cdrs (last_updated, cdr_id);
CREATE INDEX cdrs_station ON billing.cdrs (station_id, last_updated);

COMMENT ON TABLE billing.cdrs IS
    'Charge detail records: never changed, never deleted; a correction is a credit and a new one. Written by the billing service.';

CREATE TABLE billing.settlements (
    psp_ref text PRIMARY KEY,                    -- the payment, as its provider names it
    session_id uuid,                             -- null: there was no transaction, or it is not known
    station_id text NOT NULL,
    transaction_id text,
    status text NOT NULL,                        -- Settled, Canceled, Rejected or Failed
    amount numeric NOT NULL,
    currency text,
    settled_at timestamptz NOT NULL,
    receipt_id text,
    receipt_url text,
    vat_company text,
    vat_number text,
    received_at timestamptz NOT NULL
);

CREATE INDEX settlements_session ON billing.settlements (session_id);

COMMENT ON TABLE billing.settlements IS
    'What terminals of OCPP 2.1 stations settled (NotifySettlement). Written by the billing service.';

CREATE TABLE billing.unattributed (
    event_id text PRIMARY KEY,
    station_id text NOT NULL,
    evse_id bigint NOT NULL,
    energy_wh numeric(24, 6) NOT NULL,           -- negative: taken back, a late session explains it
    register_begin_wh numeric(24, 6),
    register_end_wh numeric(24, 6),
    at timestamptz NOT NULL,
    session_id uuid                              -- whose begin or end showed it
);

CREATE INDEX unattributed_station ON billing.unattributed (station_id, at);

COMMENT ON TABLE billing.unattributed IS
    'Energy that registers counted outside of any session: nobody pays for it. Written by the billing service.';
