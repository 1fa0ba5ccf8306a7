//! Who asks, and whether he may: the checks of new-api's console API, in their order.

use super::answer::Answer;
use super::request::Request;
use super::world::{Role, User, World};

/// The user behind a request, if he has at least that role; else the answer that says why not.
pub fn authenticate<'a>(world: &'a World, request: &Request, least: Role) -> Result<&'a User, Answer> {
    let unauthorized = |problem: &str| Answer::refused_with(401, &format!("Unauthorized, {problem}"));
    let Some(authorization) = request.header("Authorization") else {
        return Err(unauthorized("not logged in and no access token provided"));
    };
    let access_token = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
    let Some(user) = world.users.iter().find(|user| user.access_token == access_token) else {
        return Err(Answer::refused("Unauthorized, invalid access token"));
    };
    let Some(claimed) = request.header("New-Api-User") else {
        return Err(unauthorized("New-Api-User header not provided"));
    };
    match claimed.parse::<i64>() {
        Err(_) => return Err(unauthorized("New-Api-User header format error")),
        Ok(id) if id != user.id => return Err(unauthorized("New-Api-User does not match logged in user")),
        Ok(_) => {}
    }
    if user.is_banned {
        return Err(Answer::refused("User has been banned"));
    }
    if user.role < least {
        return Err(Answer::refused("Unauthorized, insufficient privileges"));
    }
    Ok(user)
}
