-- Configuration: what operators say about stations, id tokens and API keys. Written by the API alone; the edge,
-- sessions, stations and the router read it.

CREATE SCHEMA IF NOT EXISTS config;
COMMENT ON SCHEMA config IS 'What operators decided. Written by the API, read by every service.';

CREATE TABLE config.stations (
    station_id text PRIMARY KEY CHECK (length(station_id) BETWEEN 1 AND 255),
    password_hash text,
    boot_status text NOT NULL DEFAULT 'Accepted' CHECK (boot_status IN ('Accepted', 'Pending', 'Rejected')),
    heartbeat_interval_seconds integer CHECK (heartbeat_interval_seconds > 0),
    ocpp_version text CHECK (ocpp_version IN ('1.6', '2.0.1', '2.1')),
    security_profile integer NOT NULL DEFAULT 1 CHECK (security_profile BETWEEN 0 AND 3),
    max_frame_bytes integer CHECK (max_frame_bytes > 0),
    ping_interval_seconds integer CHECK (ping_interval_seconds >= 0),
    enabled boolean NOT NULL DEFAULT true,
    site_id text,
    location_id text,
    quirks jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(quirks) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE config.stations IS 'Stations that may connect, and how each is to be treated.';
COMMENT ON COLUMN config.stations.password_hash IS 'As busbar.passwords writes it; null: no password is set, so profiles 1 and 2 are refused.';
COMMENT ON COLUMN config.stations.boot_status IS 'What BootNotification is answered with.';
COMMENT ON COLUMN config.stations.heartbeat_interval_seconds IS 'Null: the default of the stations service.';
COMMENT ON COLUMN config.stations.ocpp_version IS 'Pin: only this version is negotiated. Null: what the station prefers of what we speak.';
COMMENT ON COLUMN config.stations.security_profile IS 'The least security profile it may connect with.';
COMMENT ON COLUMN config.stations.ping_interval_seconds IS 'Of WebSocket pings; 0: none; null: the default of the edge.';
COMMENT ON COLUMN config.stations.enabled IS 'False: refused at the door.';
COMMENT ON COLUMN config.stations.quirks IS 'Deviations of this station that are repaired or allowed, by name.';

-- Prefix search (~>=~ and ~<~) works whatever the collation of the database is.
CREATE INDEX stations_prefix ON config.stations (station_id text_pattern_ops);
CREATE INDEX stations_site ON config.stations (site_id, station_id) WHERE site_id IS NOT NULL;
CREATE INDEX stations_location ON config.stations (location_id, station_id) WHERE location_id IS NOT NULL;
CREATE INDEX stations_updated ON config.stations (updated_at);

CREATE TABLE config.tokens (
    id_token text NOT NULL CHECK (length(id_token) BETWEEN 1 AND 255),
    id_token_key text PRIMARY KEY,
    id_token_type text NOT NULL DEFAULT 'Central',
    status text NOT NULL DEFAULT 'Accepted',
    expires_at timestamptz,
    group_id text,
    cache_expires_seconds integer CHECK (cache_expires_seconds >= 0),
    allow_concurrent boolean NOT NULL DEFAULT false,
    max_concurrent integer NOT NULL DEFAULT 1 CHECK (max_concurrent >= 1),
    allowed_stations text[],
    allowed_sites text[],
    language text,
    valid_from timestamptz,
    contract_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE config.tokens IS 'Id tokens that authorize: RFID cards, app tokens, eMAIDs.';
COMMENT ON COLUMN config.tokens.id_token IS 'As it was given.';
COMMENT ON COLUMN config.tokens.id_token_key IS 'Case-folded, because OCPP compares id tokens without regard to case.';
COMMENT ON COLUMN config.tokens.status IS 'An AuthorizationStatus; expiry and concurrency are decided on top of it.';
COMMENT ON COLUMN config.tokens.group_id IS 'parentIdTag of 1.6, groupIdToken of 2.x.';
COMMENT ON COLUMN config.tokens.cache_expires_seconds IS 'How long a station may keep the answer in its authorization cache; null: the default of sessions.';
COMMENT ON COLUMN config.tokens.allowed_stations IS 'Null: every station.';
COMMENT ON COLUMN config.tokens.allowed_sites IS 'Null: every site.';

CREATE INDEX tokens_group ON config.tokens (group_id, id_token_key) WHERE group_id IS NOT NULL;
CREATE INDEX tokens_contract ON config.tokens (contract_id) WHERE contract_id IS NOT NULL;
CREATE INDEX tokens_updated ON config.tokens (updated_at);

CREATE TABLE config.api_keys (
    key_id text PRIMARY KEY,
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'operator', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE config.api_keys IS 'Keys of the HTTP API. The secret itself is not here: it is shown once.';
COMMENT ON COLUMN config.api_keys.key_id IS 'The middle part of bsb_<key id>_<secret>; not secret.';
COMMENT ON COLUMN config.api_keys.key_hash IS 'SHA-256 of the secret, which has 256 random bits, so no slow hash is needed.';
