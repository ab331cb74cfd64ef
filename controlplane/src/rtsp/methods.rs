//! The methods of RTSP 1.0 (RFC 2326 section 10), each a function from request to answer.

use std::sync::Arc;

use rtsp_types::{Method, StatusCode, headers};

use super::announce;
use super::connection::{Channels, Closed, Connection, Outcome, Wire};
use super::normalise::Request;
use super::range::{self, NptRange, RangeError, Start, seconds};
use super::reply::{METHODS, Reply};
use super::session::{Phase, Recording, Session, SessionState, SetUpTrack};
use super::target::Target;
use super::transport::{self, Lower};
use crate::config::ClassRefused;
use crate::engine::{self, Class, Engine, EngineError, PlayFrom, SessionCreated, Started, TrackTransport};
use crate::sdp;

/// Characters of a `User-Agent` that are kept.
const USER_AGENT_CHARS_MAX: usize = 120;

/// A refusal is an answer as well: `?` leads to it.
pub(super) type Answer<T = Reply> = Result<T, Reply>;

impl<E: Engine> Connection<E> {
    /// Answers one request.
    pub(super) async fn dispatch(&mut self, request: &Request, wire: &mut impl Wire) -> Result<Outcome, Closed> {
        // RFC 2326 section 12.32: options that the client cannot do without, none of which we have.
        for name in [headers::REQUIRE, headers::PROXY_REQUIRE] {
            if let Some(options) = request.header(&name) {
                return Ok(Reply::new(StatusCode::OptionNotSupported).with("Unsupported", options).into());
            }
        }
        let answer = match request.message.method() {
            Method::Options => self.options(request),
            Method::Describe => self.describe(request).await,
            Method::Setup => return self.setup(request, wire).await.map(Outcome::from),
            Method::Play => return Ok(self.play(request).await.unwrap_or_else(Outcome::from)),
            Method::Pause => self.pause(request).await,
            Method::Teardown => self.teardown(request).await,
            Method::GetParameter => self.parameter(request, true),
            Method::SetParameter => self.parameter(request, false),
            Method::Announce => self.announce(request).await,
            Method::Record => return Ok(self.record(request).await.unwrap_or_else(Outcome::from)),
            Method::Redirect => Err(Reply::refusal(StatusCode::MethodNotAllowed, "this server is not redirected").with("Allow", METHODS)),
            Method::PlayNotify | Method::Extension(_) => Err(Reply::new(StatusCode::NotImplemented).with("Public", METHODS)),
        };
        Ok(answer.unwrap_or_else(|refusal| refusal).into())
    }

    fn options(&self, request: &Request) -> Answer {
        let session = self.named_session(request)?;
        Ok(with_session(Reply::ok().with("Public", METHODS), session.as_deref()))
    }

    async fn describe(&mut self, request: &Request) -> Answer {
        if !accepts_sdp(request.header(&headers::ACCEPT)) {
            return Err(Reply::refusal(StatusCode::NotAcceptable, "only application/sdp is available"));
        }
        let session = self.named_session(request)?;
        let target = target_of(request)?;
        self.class_of(&target)?;
        let media = self.service.engine.describe(&target.path).await?;
        let sdp = sdp::describe(&target.path, &media, self.local.ip());
        self.base = format!("{}/", target.title_url);
        self.described = Some((target.path, target.query));
        Ok(with_session(Reply::ok().with("Content-Base", self.base.clone()).with_body("application/sdp", sdp), session.as_deref()))
    }

    async fn setup(&mut self, request: &Request, wire: &mut impl Wire) -> Result<Reply, Closed> {
        let plan = match self.plan_setup(request).await {
            Ok(plan) => plan,
            Err(refusal) => return Ok(refusal),
        };
        let made_here = plan.made_here;
        let session = Arc::clone(&plan.session);
        let result = self.carry_out_setup(plan, wire).await;
        if made_here && !matches!(&result, Ok(reply) if reply.status == StatusCode::Ok) {
            self.service.end(&session, "its first track was not set up").await;
        }
        result
    }

    /// Checks a SETUP and finds or makes its session. Nothing is made for a request that would be refused anyway.
    async fn plan_setup(&mut self, request: &Request) -> Answer<SetupPlan> {
        let existing = self.named_session(request)?;
        let target = target_of(request)?;
        let existing = existing.or_else(|| self.announced_session(&target));
        let choice = request.header(&headers::TRANSPORT).and_then(transport::choose).ok_or_else(|| {
            Reply::refusal(StatusCode::UnsupportedTransport, "RTP/AVP by unicast UDP or RTP/AVP/TCP interleaved is available")
        })?;
        if let Some((session, recording)) = existing.as_ref().and_then(|session| Some((session, session.recording.as_ref()?))) {
            let url = request.uri.clone().unwrap_or_default();
            let place = announce::track_at(&recording.tracks, &session.path, &target.path, &url);
            let place = place.or(target.track_id.and_then(|id| (id as usize).checked_sub(1)).filter(|&at| at < recording.tracks.len()));
            let place = place.ok_or_else(|| Reply::refusal(StatusCode::NotFound, "no such track was announced"))?;
            if !choice.record {
                return Err(Reply::refusal(StatusCode::UnsupportedTransport, "tracks that were announced need mode=record"));
            }
            return Ok(SetupPlan { session: Arc::clone(session), made_here: false, track_id: place as u32 + 1, url, choice });
        }
        if choice.record {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "ANNOUNCE comes before a SETUP with mode=record"));
        }
        let (session, made_here) = match existing {
            Some(session) if session.path == target.path => (session, false),
            Some(_) => {
                return Err(Reply::refusal(StatusCode::AggregateOperationNotAllowed, "a session plays tracks of one title"));
            }
            None => (self.make_session(&target, request).await?, true),
        };
        let track_id = match (target.track_id, session.media.tracks.as_slice()) {
            (Some(id), tracks) if tracks.iter().any(|track| track.id == id) => Ok(id),
            (Some(id), _) => Err(Reply::refusal(StatusCode::NotFound, format_args!("there is no track {id}"))),
            (None, [only]) => Ok(only.id),
            (None, _) => Err(Reply::refusal(StatusCode::AggregateOperationNotAllowed, "set up each track by its own URL")),
        };
        match track_id {
            Ok(track_id) => {
                let url = request.uri.clone().unwrap_or_default();
                Ok(SetupPlan { session, made_here, track_id, url, choice })
            }
            Err(refusal) => {
                if made_here {
                    self.service.end(&session, "its track does not exist").await;
                }
                Err(refusal)
            }
        }
    }

    /// The class of a session of this title: by its URL's query, by that of the DESCRIBE before it, or by configuration.
    fn class_of(&self, target: &Target) -> Answer<Class> {
        let described = self.described.as_ref().filter(|(path, _)| *path == target.path).and_then(|(_, query)| query.as_deref());
        let query = target.query.as_deref().or(described);
        self.service.classes.decide(&target.path, query, self.peer.ip()).map_err(|refused| match refused {
            ClassRefused::Unknown(_) => Reply::refusal(StatusCode::BadRequest, &refused),
            ClassRefused::NotAllowed => Reply::refusal(StatusCode::Forbidden, &refused),
        })
    }

    async fn make_session(&mut self, target: &Target, request: &Request) -> Answer<Arc<Session>> {
        let class = self.class_of(target)?;
        let created = self.service.engine.create_session(&target.path, self.peer, class).await?;
        Ok(self.keep_session(created, target.path.clone(), class, request, None))
    }

    /// Registers a session that the engine made.
    pub(super) fn keep_session(
        &mut self,
        created: SessionCreated,
        path: String,
        class: Class,
        request: &Request,
        recording: Option<Recording>,
    ) -> Arc<Session> {
        let user_agent = request.header(&headers::USER_AGENT).unwrap_or_default().chars().take(USER_AGENT_CHARS_MAX).collect();
        let number = self.service.sessions.next_number();
        let session = Session::new(number, created, path, class, self.peer, user_agent, recording);
        self.service.add(Arc::clone(&session));
        self.sessions.push(Arc::clone(&session));
        session
    }

    async fn carry_out_setup(&mut self, plan: SetupPlan, wire: &mut impl Wire) -> Result<Reply, Closed> {
        let SetupPlan { session, track_id, url, choice, .. } = plan;
        let mut state = session.state.lock().await;
        if session.has_ended() {
            return Ok(Reply::new(StatusCode::SessionNotFound));
        }
        if matches!(state.phase, Phase::Playing(_)) {
            return Ok(Reply::refusal(StatusCode::MethodNotValidInThisState, "pause before setting up a track"));
        }
        let mut pair = (0, 0);
        let transport = match choice.lower {
            Lower::Udp { rtp_port, rtcp_port } => {
                let (mut rtp, mut rtcp) = (self.peer, self.peer);
                rtp.set_port(rtp_port);
                rtcp.set_port(rtcp_port);
                TrackTransport::Udp { rtp, rtcp, local_addr: self.local.ip() }
            }
            Lower::Interleaved { channels } => {
                let Some(free) = self.free_channels(&session, track_id, channels) else {
                    return Ok(Reply::refusal(StatusCode::NotEnoughBandwidth, "no interleaved channels are left on this connection"));
                };
                pair = free;
                if self.stream.is_none() {
                    self.flush(wire).await?;
                    match self.service.engine.attach_stream(wire.hand_over().await?, session.engine_id).await {
                        Ok(stream) => self.stream = Some(stream),
                        Err(error) => return Ok(error.into()),
                    }
                }
                // Set just above.
                let Some(stream) = self.stream else { return Ok(Reply::new(StatusCode::InternalServerError)) };
                TrackTransport::Interleaved { stream, rtp_channel: pair.0, rtcp_channel: pair.1 }
            }
        };
        let ready = match self.service.engine.setup_session(session.engine_id, track_id, transport).await {
            Ok(ready) => ready,
            Err(error) => {
                drop(state);
                return Ok(self.refused(&session, error).await);
            }
        };
        state.tracks.retain(|track| track.id != track_id);
        state.tracks.push(SetUpTrack { id: track_id, url, transport, torn_down: false });
        self.channels.retain(|channels| !(Arc::ptr_eq(&channels.session, &session) && channels.track_id == track_id));
        if matches!(transport, TrackTransport::Interleaved { .. }) {
            session.deliver_through(&self.hangup);
            self.channels.push(Channels { session: Arc::clone(&session), track_id, pair });
            // A session made on another connection now depends on this one as well.
            if !self.sessions.iter().any(|known| Arc::ptr_eq(known, &session)) {
                self.sessions.push(Arc::clone(&session));
            }
        }
        let timeout_s = self.service.session_timeout.as_secs();
        Ok(Reply::ok()
            .with("Session", format!("{};timeout={timeout_s}", session.id))
            .with("Transport", transport::answer(&choice, pair, &ready)))
    }

    /// The channels asked for if no other track on this connection has them, else the lowest free pair.
    fn free_channels(&mut self, session: &Arc<Session>, track_id: u32, asked: Option<(u8, u8)>) -> Option<(u8, u8)> {
        self.has_session();
        let others = || self.channels.iter().filter(|c| !(Arc::ptr_eq(&c.session, session) && c.track_id == track_id));
        let used = |channel: u8| others().any(|c| c.pair.0 == channel || c.pair.1 == channel);
        let free = |pair: &(u8, u8)| !used(pair.0) && !used(pair.1);
        asked.filter(free).or_else(|| (0..=u8::MAX - 1).step_by(2).map(|low| (low, low + 1)).find(free))
    }

    async fn play(&mut self, request: &Request) -> Answer<Outcome> {
        let asked = match request.header(&headers::RANGE) {
            Some(header) => Some(range::parse(header)?),
            None => None,
        };
        let session = self.needed_session(request)?;
        if session.recording.is_some() {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "this session records; RECORD starts it"));
        }
        let mut state = session.state.lock().await;
        check_aggregate(request, &session, &state)?;
        // What is live is played from now on, whatever was asked for.
        let asked = asked.filter(|_| !session.media.is_live());

        let from_where_it_is = asked.is_none_or(|range| range == NptRange { start: Start::Position, end_ns: None });
        let mut from = PlayFrom::Position;
        if from_where_it_is && let Phase::Playing(started) = &state.phase {
            match self.service.engine.session_status(session.engine_id).await {
                // RFC 2326 section 10.5: a PLAY while playing. The time line of the delivery under way is told again.
                Ok(status) if status.state == engine::SessionState::Playing => {
                    return Ok(play_reply(request, &session, &state, started).into());
                }
                Ok(status) if status.state == engine::SessionState::Ended => from = PlayFrom::Npt(0),
                Ok(_) => {}
                Err(error) => {
                    drop(state);
                    return Err(self.refused(&session, error).await);
                }
            }
        }
        let mut to_ns = None;
        if let Some(range) = asked {
            let range = range.within(session.media.duration_ns)?;
            to_ns = range.end_ns;
            if let Start::Npt(start_ns) = range.start {
                from = PlayFrom::Npt(start_ns);
            }
        }
        match self.service.engine.start_session(session.engine_id, from, to_ns).await {
            Ok(started) => {
                let reply = play_reply(request, &session, &state, &started);
                state.phase = Phase::Playing(started);
                drop(state);
                Ok(Outcome { reply, run: Some(session) })
            }
            Err(error) => {
                drop(state);
                Err(self.refused(&session, error).await)
            }
        }
    }

    async fn pause(&mut self, request: &Request) -> Answer {
        let session = self.needed_session(request)?;
        if session.recording.is_some() {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "what is recorded cannot be paused; TEARDOWN ends it"));
        }
        let mut state = session.state.lock().await;
        check_aggregate(request, &session, &state)?;
        match &state.phase {
            Phase::Ready => Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "nothing was played yet")),
            Phase::Paused => Ok(with_session(Reply::ok(), Some(&session))),
            Phase::Playing(_) => match self.service.engine.stop_session(session.engine_id).await {
                Ok(position_ns) => {
                    state.phase = Phase::Paused;
                    let range = if session.media.is_live() { "npt=now-".to_owned() } else { format!("npt={}-", seconds(position_ns)) };
                    Ok(with_session(Reply::ok(), Some(&session)).with("Range", range))
                }
                Err(error) => {
                    drop(state);
                    Err(self.refused(&session, error).await)
                }
            },
        }
    }

    async fn teardown(&mut self, request: &Request) -> Answer {
        let session = self.needed_session(request)?;
        let mut state = session.state.lock().await;
        if let Some(target) = session_target(request, &session)?
            && let Some(id) = target.track_id
        {
            let track = state.tracks.iter_mut().find(|track| track.id == id);
            track.ok_or_else(|| Reply::refusal(StatusCode::NotFound, "this track is not set up"))?.torn_down = true;
            // An engine delivers a session as a whole. Who tears its tracks down one by one is done with the last.
            if !state.tracks.iter().all(|track| track.torn_down) {
                return Err(with_session(
                    Reply::refusal(StatusCode::OnlyAggregateOperationAllowed, "tear the whole title down"),
                    Some(&session),
                ));
            }
        }
        drop(state);
        self.service.end(&session, "its client tore it down").await;
        Ok(with_session(Reply::ok(), Some(&session)))
    }

    /// GET_PARAMETER and SET_PARAMETER: without a body a sign of life; there are no parameters to get or set.
    fn parameter(&self, request: &Request, get: bool) -> Answer {
        let session = self.named_session(request)?;
        if request.message.body().trim_ascii().is_empty() {
            return Ok(with_session(Reply::ok(), session.as_deref()));
        }
        let why = if get { "no such parameter" } else { "no parameter can be set" };
        Err(with_session(Reply::refusal(StatusCode::ParameterNotUnderstood, why), session.as_deref()))
    }

    /// The session that the request names, which this keeps alive; 454 when there is none of that name for this client.
    pub(super) fn named_session(&self, request: &Request) -> Answer<Option<Arc<Session>>> {
        let Some(header) = request.header(&headers::SESSION) else { return Ok(None) };
        // Some clients repeat the timeout parameter.
        let id = header.split(';').next().unwrap_or_default().trim();
        let session = self.service.sessions.find(id, self.peer.ip()).ok_or_else(|| Reply::new(StatusCode::SessionNotFound))?;
        session.touch();
        Ok(Some(session))
    }

    fn needed_session(&self, request: &Request) -> Answer<Arc<Session>> {
        self.named_session(request)?.ok_or_else(|| Reply::refusal(StatusCode::SessionNotFound, "the Session header is missing"))
    }

    /// The answer to an engine's refusal; a session that the engine does not know ends here too.
    async fn refused(&self, session: &Session, error: EngineError) -> Reply {
        if error == EngineError::NoSession {
            self.service.end(session, "the engine does not know it").await;
        }
        error.into()
    }
}

/// A SETUP that can be carried out.
struct SetupPlan {
    session: Arc<Session>,
    made_here: bool,
    track_id: u32,
    url: String,
    choice: transport::Choice,
}

impl From<RangeError> for Reply {
    fn from(error: RangeError) -> Self {
        let status = match error {
            // RFC 2326 section 12.29: "a time format that is not understood".
            RangeError::Unit => StatusCode::NotImplemented,
            _ => StatusCode::InvalidRange,
        };
        Self::refusal(status, error)
    }
}

pub(super) fn with_session(reply: Reply, session: Option<&Session>) -> Reply {
    match session {
        Some(session) => reply.with("Session", session.id.clone()),
        None => reply,
    }
}

/// The title that the request names; 404 when the URL cannot name one.
pub(super) fn target_of(request: &Request) -> Answer<Target> {
    let uri = request.uri.as_deref().ok_or_else(|| Reply::refusal(StatusCode::BadRequest, "this method needs a URL"))?;
    Target::parse(uri)
        .filter(|target| !target.path.is_empty())
        .ok_or_else(|| Reply::refusal(StatusCode::NotFound, "the URL names no title"))
}

/// What a request within a session names: `None` for `*` or the server's root, which stand for the session as a whole.
fn session_target(request: &Request, session: &Session) -> Answer<Option<Target>> {
    let Some(uri) = request.uri.as_deref() else { return Ok(None) };
    let target = Target::parse(uri).filter(|target| target.path.is_empty() || session.is_named_by(&target.path));
    let target = target.ok_or_else(|| Reply::refusal(StatusCode::NotFound, "the session plays another title"))?;
    Ok(Some(target).filter(|target| !target.path.is_empty() || target.track_id.is_some()))
}

/// PLAY and PAUSE work on the whole session; a track's URL will do when it is the only one.
pub(super) fn check_aggregate(request: &Request, session: &Session, state: &SessionState) -> Answer<()> {
    if session.has_ended() {
        return Err(Reply::new(StatusCode::SessionNotFound));
    }
    let Some(track_id) = session_target(request, session)?.and_then(|target| target.track_id) else { return Ok(()) };
    match state.tracks.as_slice() {
        [only] if only.id == track_id => Ok(()),
        tracks if tracks.iter().any(|track| track.id == track_id) => {
            Err(Reply::refusal(StatusCode::OnlyAggregateOperationAllowed, "play and pause the whole title"))
        }
        _ => Err(Reply::refusal(StatusCode::NotFound, "this track is not set up")),
    }
}

fn play_reply(request: &Request, session: &Session, state: &SessionState, started: &Started) -> Reply {
    let info = started.tracks.iter().filter_map(|start| {
        let track = state.tracks.iter().find(|track| track.id == start.track_id)?;
        // Both characters separate fields of RTP-Info (RFC 2326 section 12.33).
        let url = track.url.replace(',', "%2C").replace(';', "%3B");
        Some(format!("url={url};seq={};rtptime={}", start.seq, start.rtptime))
    });
    // Play to the end of the title is answered with an open end: GStreamer drops pictures behind the end named here, and counts from the
    // first packet, while its clock begins one reordering delay earlier.
    let to_the_end = started.to_ns >= session.media.duration_ns;
    let end = if to_the_end { String::new() } else { seconds(started.to_ns) };
    let range = if session.media.is_live() { "npt=now-".to_owned() } else { format!("npt={}-{end}", seconds(started.from_ns)) };
    let mut reply = with_session(Reply::ok(), Some(session)).with("Range", range).with("RTP-Info", info.collect::<Vec<_>>().join(","));
    // RFC 2326 sections 12.34, 12.35: the answer says the value that holds.
    for (name, header) in [("Scale", headers::SCALE), ("Speed", headers::SPEED)] {
        if request.header(&header).is_some() {
            reply = reply.with(name, "1.0");
        }
    }
    reply
}

/// RFC 2326 section 12.1. No `Accept` means anything.
fn accepts_sdp(accept: Option<&str>) -> bool {
    let is_sdp = |kind: &str| ["application/sdp", "application/*", "*/*", "*"].iter().any(|known| known.eq_ignore_ascii_case(kind));
    accept.is_none_or(|list| list.split(',').any(|entry| is_sdp(entry.split(';').next().unwrap_or_default().trim())))
}
